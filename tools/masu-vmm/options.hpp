// The command line of masu-vmm.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/log.hpp"
#include "base/result.hpp"
#include "vmm/config.hpp"
#include "vmm/jail/jail.hpp"

namespace masu {

struct Options {
    enum class Task { Run, Pool, ServeForks, Help, Version };
    Task task = Task::Run;
    std::optional<std::string> api_socket;
    std::optional<int> api_fd;
    std::optional<std::string> pool_socket;  // Task::Pool
    std::optional<int> fork_server_fd;       // Task::ServeForks
    std::optional<std::string> config_file;
    bool api = true;
    std::string id = "anonymous-instance";
    Transport transport = Transport::Pci;
    bool reboot = true;
    bool boot_timer = false;
    std::optional<std::uint64_t> start_time_us;  // of the monotonic clock
    std::string console = "stdio";               // or "none", or the path of a socket
    std::optional<std::string> console_log;
    std::optional<std::string> log_path;
    std::optional<LogLevel> level;  // absent: info to a file, warn to standard error
    std::optional<std::string> metrics_path;
    std::optional<std::string> exit_file;
    std::optional<int> ready_fd;
    std::size_t max_payload = 51200;
    bool no_jail = false;
    std::optional<jail::FilterMode> seccomp;  // as given
    jail::Options jail;                       // what comes of both
};

// An error is a sentence for standard error; the exit status that goes with it is BadArguments.
[[nodiscard]] Result<Options> parse_options(std::span<char*> arguments);

[[nodiscard]] std::string help_text();

}  // namespace masu
