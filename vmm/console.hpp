// The guest's serial port, shared out: to this process's terminal, to a file, and to any number of
// clients of a socket; and what they type, back to the guest.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/event_loop.hpp"
#include "base/log.hpp"
#include "vmm/console_log.hpp"
#include "vmm/unix_listener.hpp"

namespace masu {

// Loop thread. Nothing here waits: who does not read loses (a terminal) or is cut off (a client).
class Console {
  public:
    static constexpr std::size_t replay_size = 64 * KiB;  // what a new client is shown first
    static constexpr std::size_t client_limit = 1 * MiB;  // unread output of one reader
    static constexpr std::size_t input_limit = 4 * KiB;   // typed, not taken by the guest yet
    static constexpr std::size_t max_clients = 32;

    // Gives bytes to the guest and returns how many it took.
    using Input = std::function<std::size_t(std::span<const std::byte>)>;

    [[nodiscard]] static Result<std::unique_ptr<Console>> create(EventLoop& loop, Log log);
    ~Console();
    Console(const Console&) = delete;
    Console& operator=(const Console&) = delete;

    // Output also goes to `path`, and no longer to an earlier one.
    [[nodiscard]] Result<> open_log(const std::string& path);
    // Clients that connect at `path` are attached.
    [[nodiscard]] Result<> listen(const std::string& path);
    // One client: sees the last of the output, then what comes.
    void attach(Fd socket);
    // The process's own input and output; both stay open when the console ends. The terminal's
    // mode is not touched, and descriptors shared with other processes are not made non-blocking.
    [[nodiscard]] Result<> attach_stdio(int input, int output);

    void output(std::span<const std::byte> bytes);
    // Where input goes from now on. Without one it waits, and its writers with it.
    void set_input(Input input);

    // Tries for at most `milliseconds` to deliver what readers have not read yet. Blocks.
    void flush(int milliseconds);

    [[nodiscard]] std::size_t clients() const noexcept { return readers_.size(); }

  private:
    class Reader;
    Console(EventLoop& loop, Log log);
    void remember(std::span<const std::byte> bytes);
    void accept_input(std::span<const std::byte> bytes);
    void pump_input();
    void detach(Reader& reader);

    EventLoop& loop_;
    Log log_;
    std::string replay_;  // its last replay_size bytes count
    std::vector<std::unique_ptr<Reader>> readers_;
    std::optional<ConsoleLog> log_file_;
    std::unique_ptr<UnixListener> listener_;
    Input input_;
    std::string typed_;
    Nanoseconds retry_after_ = 0;
    std::optional<EventLoop::Timer> retry_;
};

}  // namespace masu
