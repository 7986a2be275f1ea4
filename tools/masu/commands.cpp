// What the subcommands share.
#include "tools/masu/commands.hpp"

#include <unistd.h>

#include <cstdio>

#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <CLI/Validators.hpp>

namespace masu::cli {

void add_no_jail(CLI::App& command, bool& no_jail) {
    command.add_flag("--no-jail", no_jail,
                     "Run the monitor without its jail; a warning says so each time");
}

CLI::Option* add_choice(CLI::App& command, const std::string& names, std::string& value,
                        const std::vector<std::string>& words, const std::string& description) {
    std::string joined;
    for (const auto& word : words)
        joined += (joined.empty() ? "" : "|") + word;
    const auto check = [words, joined](const std::string& given) -> std::string {
        for (const auto& word : words)
            if (word == given)
                return {};
        return "\"" + given + "\" is none of " + joined;
    };
    return command.add_option(names, value, description)->type_name(joined)->check(check);
}

void add_output_option(CLI::App& command, OutputFormat& format) {
    const std::map<std::string, OutputFormat> words{{"text", OutputFormat::Text},
                                                    {"json", OutputFormat::Json}};
    command
        .add_option_function<std::string>(
            "--output", [&format, words](const std::string& word) { format = words.at(word); },
            "How to print: for people, or for programs")
        ->type_name("text|json")
        ->check([words](const std::string& given) -> std::string {
            return words.contains(given) ? "" : "\"" + given + "\" is neither text nor json";
        });
}

Result<Places> find_own_places() {
    return find_places(process_environment(), ::geteuid() == 0);
}

Result<Store> open_store() {
    return Store(TRY(find_own_places()));
}

void note(const std::string& message) {
    const auto line = "masu: " + message + "\n";
    std::fputs(line.c_str(), stderr);
}

}  // namespace masu::cli
