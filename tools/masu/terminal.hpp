// This terminal while a guest has it: raw mode that always ends, and the keys that are ours.
#pragma once

#include <termios.h>

#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace masu::cli {

// Raw mode on a terminal, until destroyed. Also undone when this process crashes. One at a time.
class RawTerminal {
  public:
    [[nodiscard]] static Result<RawTerminal> enter(int fd);
    RawTerminal(RawTerminal&& other) noexcept;
    RawTerminal& operator=(RawTerminal&&) = delete;
    ~RawTerminal();

    // For the time this process is stopped.
    void suspend() const noexcept;
    void resume() const noexcept;

  private:
    RawTerminal(int fd, const termios& before) noexcept : fd_(fd), before_(before) {}
    int fd_;
    termios before_;
};

// Whether `fd` is a terminal that this process may read and set: not one it is in the background
// of, which would stop it.
[[nodiscard]] bool is_own_terminal(int fd);

enum class EscapeCommand { Quit, Detach, Help };

// Finds Ctrl-A commands in what is typed. Ctrl-A Ctrl-A (or Ctrl-A A) sends one Ctrl-A; Ctrl-A with
// any other key sends nothing and asks for help.
class EscapeKeys {
  public:
    struct Step {
        std::string to_guest;
        std::optional<EscapeCommand> command;
        std::size_t used = 0;  // of the input; the rest is for another step
    };
    // Reads up to and including the first command.
    [[nodiscard]] Step feed(std::string_view typed);

  private:
    bool escaped_ = false;
};

}  // namespace masu::cli
