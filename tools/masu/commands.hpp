// The subcommands of `masu`: each function adds one to the program, with its options and help.
#pragma once

#include <functional>
#include <string>

#include "base/result.hpp"
#include "tools/masu/state.hpp"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace masu::cli {

// What the command line asked for; set by the subcommand that was chosen. Its value is the exit
// status; its error is printed and the status is 1.
struct Invocation {
    std::function<Result<int>()> run;
};

void add_run_command(CLI::App& program, Invocation& invocation);
void add_ps_command(CLI::App& program, Invocation& invocation);
void add_inspect_command(CLI::App& program, Invocation& invocation);
void add_logs_command(CLI::App& program, Invocation& invocation);
void add_console_command(CLI::App& program, Invocation& invocation);
void add_ssh_command(CLI::App& program, Invocation& invocation);
void add_stop_command(CLI::App& program, Invocation& invocation);
void add_kill_command(CLI::App& program, Invocation& invocation);
void add_rm_command(CLI::App& program, Invocation& invocation);
void add_image_command(CLI::App& program, Invocation& invocation);
void add_net_command(CLI::App& program, Invocation& invocation);
void add_flow_logs_command(CLI::App& program, Invocation& invocation);
void add_sg_command(CLI::App& program, Invocation& invocation);
void add_sg_counters_command(CLI::App& sg, Invocation& invocation);
void add_prefix_list_command(CLI::App& program, Invocation& invocation);
void add_snapshot_command(CLI::App& program, Invocation& invocation);
void add_page_server(CLI::App& program, Invocation& invocation);
void add_doctor_command(CLI::App& program, Invocation& invocation);
void add_version_command(CLI::App& program, Invocation& invocation);
void add_completion_command(CLI::App& program, Invocation& invocation);

// Names of option values, as help shows them. Completion goes by them.
inline constexpr const char* file_value = "FILE";
inline constexpr const char* vm_value = "VM";
inline constexpr const char* image_value = "IMAGE";
inline constexpr const char* group_value = "GROUP";
inline constexpr const char* network_value = "NETWORK";
inline constexpr const char* prefix_list_value = "LIST";
inline constexpr const char* snapshot_value = "SNAPSHOT";

// --output text|json
enum class OutputFormat { Text, Json };
void add_output_option(CLI::App& command, OutputFormat& format);

// An option that takes one of a few words; help and completion show them.
CLI::Option* add_choice(CLI::App& command, const std::string& names, std::string& value,
                        const std::vector<std::string>& words, const std::string& description);

// --no-jail, --jail-read and --jail-write, of commands that start a monitor.
struct JailOptions {
    bool off = false;
    std::vector<std::string> read;
    std::vector<std::string> write;
};
void add_jail_options(CLI::App& command, JailOptions& options);
// Warns where there is none.
void tell_of_jail(const JailOptions& options);
void set_jail(const JailOptions& options, VmRecord& record);

// Where this user's state lies, and the store in it; short cuts for commands.
[[nodiscard]] Result<Places> find_own_places();
[[nodiscard]] Result<Store> open_store();

// "masu: MESSAGE" on stderr.
void note(const std::string& message);

}  // namespace masu::cli
