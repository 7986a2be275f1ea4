// What the subcommands share.
#include "tools/masu/commands.hpp"

#include <unistd.h>

#include <cstdio>

#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <CLI/Validators.hpp>

#include "tools/masu/host_file.hpp"
#include "vmm/jail/jail.hpp"

namespace masu::cli {

void add_jail_options(CLI::App& command, JailOptions& options) {
    auto* none = command.add_flag(
        "--no-jail", options.off,
        "Do not confine the monitor to the system calls and files that this VM needs: a guest that "
        "breaks out of its VM can then do what this user can");
    command
        .add_option("--jail-read", options.read,
                    "A file or folder that the monitor may read, beyond what the VM is made of. "
                    "Repeat for more")
        ->excludes(none)
        ->type_name(file_value)
        ->allow_extra_args(false)
        ->take_all();
    command
        .add_option("--jail-write", options.write,
                    "A file or folder that it may also change, for disks that the VM gets later")
        ->excludes(none)
        ->type_name(file_value)
        ->allow_extra_args(false)
        ->take_all();
}

void tell_of_jail(const JailOptions& options) {
    if (options.off)
        note(std::string(jail::no_jail_warning));
}

void set_jail(const JailOptions& options, VmRecord& record) {
    record.jail = !options.off;
    record.jail_read.clear();
    record.jail_write.clear();
    for (const auto& path : options.read)
        record.jail_read.push_back(absolute_path(path));
    for (const auto& path : options.write)
        record.jail_write.push_back(absolute_path(path));
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
