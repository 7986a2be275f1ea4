// Another program as a child: its output read while it runs, ended when we are.
#pragma once

#include <sys/types.h>

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "tools/masu/progress.hpp"

namespace masu::cli {

struct ChildProgram {
    std::vector<std::string> arguments;  // the first is the program, looked for on PATH
    std::string package;                 // which Debian package has it, for the error
    std::vector<std::pair<std::string, std::string>> environment;  // added to ours
    bool own_mounts = false;  // a mount namespace, so that what it mounts goes when it does
    // What it writes, as it comes.
    std::function<void(std::string_view)> output;
    std::function<void(std::string_view)> errors;
};

// What execv() takes: borrowed, valid as long as the arguments and their strings stay as they are.
[[nodiscard]] std::vector<char*> exec_arguments(std::vector<std::string>& arguments);

// No signal blocked, and none ignored of those that end a program. Async-signal-safe.
void default_signals();

// Becomes masu, or another program, that outlives its caller: `null` is its input and output, `log`
// its errors, and of all other descriptors it has only those `kept`. In a child; only
// async-signal-safe calls. Returns where exec failed.
void exec_in_background(const char* program, char* const* arguments, int null, int log,
                        std::span<const int> kept);

// Starts this program with these arguments (the first is its name) so, as nobody's child, with its
// errors at the end of the file `log_path`. `what` names it in errors.
[[nodiscard]] Result<> start_in_background(std::vector<std::string> arguments,
                                           const std::string& log_path, std::span<const int> kept,
                                           std::string_view what);

// Runs it to its end in a process group of its own, with nothing on standard input; the exit
// status, 128 + n when signal n ended it. On an interruption the whole group is ended, and waited
// for.
[[nodiscard]] Result<int> run_child(const ChildProgram& program,
                                    const Interruptions& interruptions);

}  // namespace masu::cli
