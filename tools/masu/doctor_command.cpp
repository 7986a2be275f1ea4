// masu doctor: can this machine run VMs, and if not, what would help.
#include <unistd.h>
#include <CLI/App.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include <boost/json.hpp>

#include "tools/masu/commands.hpp"
#include "tools/masu/doctor_checks.hpp"

namespace masu::cli {
namespace {

std::string_view to_string(Verdict verdict) {
    switch (verdict) {
        case Verdict::Good:
            return "ok";
        case Verdict::Note:
            return "note";
        case Verdict::Problem:
            return "problem";
    }
    return "problem";
}

// The word in its colour, where colours are wanted.
std::string painted(Verdict verdict, bool colours) {
    const auto word = fmt::format("{:<8}", to_string(verdict));
    if (!colours)
        return word;
    const char* colour = verdict == Verdict::Good ? "32" : verdict == Verdict::Note ? "33" : "31";
    return fmt::format("\033[{}m{}\033[0m", colour, word);
}

bool wants_colours() {
    const char* refused = std::getenv("NO_COLOR");
    return ::isatty(STDOUT_FILENO) != 0 && (refused == nullptr || *refused == '\0');
}

bool runs_directly(const std::vector<Check>& checks) {
    return std::ranges::none_of(
        checks, [](const Check& check) { return check.verdict == Verdict::Problem; });
}

void print_text(const std::vector<Check>& checks, bool verbose) {
    const bool colours = wants_colours();
    for (const auto& check : checks) {
        std::printf("%s %-9s %s\n", painted(check.verdict, colours).c_str(), check.name.c_str(),
                    check.finding.c_str());
        if (!check.remedy.empty())
            std::printf("%*s %s\n", 18, "", check.remedy.c_str());
        if (verbose)
            for (const auto& detail : check.details)
                std::printf("%*s - %s\n", 18, "", detail.c_str());
    }
    std::puts(runs_directly(checks) ? "VMs run directly on this machine."
                                    : "VMs do not run directly on this machine.");
}

void print_json(const std::vector<Check>& checks) {
    boost::json::array list;
    for (const auto& check : checks) {
        boost::json::object one{{"name", check.name},
                                {"verdict", to_string(check.verdict)},
                                {"finding", check.finding}};
        if (!check.remedy.empty())
            one["remedy"] = check.remedy;
        if (!check.details.empty())
            one["details"] = boost::json::array(check.details.begin(), check.details.end());
        list.push_back(std::move(one));
    }
    const boost::json::object object{{"runs_directly", runs_directly(checks)},
                                     {"checks", std::move(list)}};
    std::puts(boost::json::serialize(object).c_str());
}

struct DoctorOptions {
    bool verbose = false;
    OutputFormat format = OutputFormat::Text;
};

Result<int> examine(const DoctorOptions& options) {
    const auto checks = check_machine();
    if (options.format == OutputFormat::Json)
        print_json(checks);
    else
        print_text(checks, options.verbose);
    return runs_directly(checks) ? 0 : 1;
}

}  // namespace

void add_doctor_command(CLI::App& program, Invocation& invocation) {
    auto* command = program.add_subcommand("doctor", "Find out whether this machine can run VMs");
    auto options = std::make_shared<DoctorOptions>();
    command->add_flag("-v,--verbose", options->verbose, "Also what was tried");
    add_output_option(*command, options->format);
    command->footer(
        "Tells hardware KVM from absent KVM, and from a software KVM that interprets guest "
        "kernels,\n"
        "by running a probe guest. The exit status is 0 when VMs run directly on this machine.\n"
        "\n"
        "Examples:\n"
        "  masu doctor\n"
        "  masu doctor --output json");
    command->callback(
        [options, &invocation] { invocation.run = [options] { return examine(*options); }; });
}

}  // namespace masu::cli
