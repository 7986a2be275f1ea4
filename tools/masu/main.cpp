// masu: runs and looks after microVMs.
#include <cstdio>
#include <exception>

#include <CLI/CLI.hpp>

#include "tools/masu/commands.hpp"

namespace {

constexpr int failure = 1;
constexpr int bad_usage = 2;

constexpr const char* footer =
    "Examples:\n"
    "  masu doctor                                     can this machine run VMs?\n"
    "  masu run --kernel vmlinuz --disk debian.raw     boot, with the console here\n"
    "  masu run --kernel vmlinuz --disk debian.raw,overlay=web.overlay --name web -d\n"
    "  masu ps\n"
    "  masu console web                                Ctrl-A H shows its keys\n"
    "  masu stop web && masu rm web\n"
    "\n"
    "`masu COMMAND --help` explains a command; masu(1) explains all of them.";

// "masu image import"
std::string chosen_command(const CLI::App& program) {
    std::string name = "masu";
    for (auto chosen = program.get_subcommands(); !chosen.empty();
         chosen = chosen.front()->get_subcommands())
        name += " " + chosen.front()->get_name();
    return name;
}

int report_usage(const CLI::App& program, const CLI::ParseError& error) {
    const auto name = chosen_command(program);
    std::fprintf(stderr, "%s: %s; see `%s --help`\n", name.c_str(), error.what(), name.c_str());
    return bad_usage;
}

int run(int argc, char** argv) {
    CLI::App program("Runs and looks after microVMs on Linux/KVM.", "masu");
    program.footer(footer);
    program.set_version_flag("--version", "masu " MASU_VERSION, "Print the version");
    program.set_help_flag("-h,--help", "Print this help");
    program.get_formatter()->column_width(36);
    program.require_subcommand(0, 1);

    masu::cli::Invocation invocation;
    masu::cli::add_run_command(program, invocation);
    masu::cli::add_ps_command(program, invocation);
    masu::cli::add_inspect_command(program, invocation);
    masu::cli::add_logs_command(program, invocation);
    masu::cli::add_console_command(program, invocation);
    masu::cli::add_ssh_command(program, invocation);
    masu::cli::add_stop_command(program, invocation);
    masu::cli::add_kill_command(program, invocation);
    masu::cli::add_rm_command(program, invocation);
    masu::cli::add_image_command(program, invocation);
    masu::cli::add_net_command(program, invocation);
    masu::cli::add_flow_logs_command(program, invocation);
    masu::cli::add_sg_command(program, invocation);
    masu::cli::add_prefix_list_command(program, invocation);
    masu::cli::add_snapshot_command(program, invocation);
    masu::cli::add_doctor_command(program, invocation);
    masu::cli::add_version_command(program, invocation);
    masu::cli::add_completion_command(program, invocation);

    try {
        program.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return error.get_exit_code() == 0 ? program.exit(error) : report_usage(program, error);
    }
    if (!invocation.run) {
        std::fputs(program.help().c_str(), stderr);
        return bad_usage;
    }
    const auto status = invocation.run();
    if (!status) {
        masu::cli::note(status.error().message);
        return failure;
    }
    if (std::fflush(stdout) != 0) {
        std::fputs("masu: cannot write to stdout\n", stderr);
        return failure;
    }
    return *status;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        return run(argc, argv);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "masu: %s\n", error.what());
        return failure;
    }
}
