// One stream between a port of the guest and a socket of the host.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/bytes.hpp"
#include "base/clock.hpp"
#include "base/event_loop.hpp"
#include "base/fd.hpp"
#include "devices/vsock/credit.hpp"
#include "devices/vsock/packet.hpp"

namespace masu::vsock {

struct Ports {
    std::uint32_t guest = 0;
    std::uint32_t host = 0;
    bool operator==(const Ports&) const = default;
};

// What it knows and does of the host's socket, which never blocks, and what it owes the guest. The
// queues are the device's business. Not thread-safe: under the device's mutex.
class Connection {
  public:
    // Of the guest's data, waiting for the program on the host to read it.
    static constexpr std::uint32_t buffer_size = 128 * KiB;

    enum class State : std::uint8_t {
        Greeting,   // the program has not said yet what port it wants; Ports mean nothing
        Requested,  // the guest has not answered yet
        Open,
        Dying,      // all that is left is to tell the guest: op::rst
        Lingering,  // all that is left is to give the host what waits; the guest is done
    };

    Connection(std::uint64_t id, State begins_as, Fd socket)
        : id_(id), state(begins_as), socket_(std::move(socket)) {}

    [[nodiscard]] std::uint64_t id() const noexcept { return id_; }
    [[nodiscard]] int socket() const noexcept { return socket_.get(); }
    // Edge-triggered: see readable. `handler` is called on the loop's thread.
    [[nodiscard]] Result<> watch(EventLoop& loop, EventLoop::Handler handler);

    // Consumes the line of a program in State::Greeting.
    enum class Greeted : std::uint8_t { NotYet, Refused, Asked };
    [[nodiscard]] Greeted greet(std::uint32_t& port) noexcept;
    // Tells the program that it has its connection; false when that cannot be told any more.
    [[nodiscard]] bool confirm() noexcept;

    // The guest's bytes, `size` in all, which receive_credit has accepted. What the socket does not
    // take now waits. For a program that does not read any more they are dropped.
    void pass_on(std::span<const iovec> payload, std::size_t size);
    // Goes on with what waits.
    void flush();
    [[nodiscard]] bool flushed() const noexcept { return begin_ == waiting_.size(); }
    // The guest sends no more: the program is to see the end once it has read everything.
    void finish_sending();
    // The guest reads no more.
    void stop_receiving() noexcept;

    // Bytes of the program, straight into the guest's buffers. Nothing now: readable is false.
    // The end, or an error: end() or broken() is true.
    [[nodiscard]] std::size_t receive(std::span<const iovec> room) noexcept;

    // What epoll said. Remembered until a call finds out that it is over.
    void heard(std::uint32_t events);

    // The end of the program's bytes has been read.
    [[nodiscard]] bool end() const noexcept { return end_; }
    [[nodiscard]] bool broken() const noexcept { return broken_; }
    // What the program does no more, as flags of op::shutdown.
    [[nodiscard]] std::uint32_t host_shutdown() const noexcept;
    [[nodiscard]] bool readable() const noexcept { return readable_ && !end_ && !broken_; }
    // Both directions are over on the host's side.
    [[nodiscard]] bool hung_up() const noexcept { return hung_up_; }
    // Ends both directions for the program at once; for when the socket itself must wait to be
    // closed.
    void cut() noexcept;
    // There may be bytes that epoll has told of already.
    void look_again() noexcept { readable_ = true; }

    // May bytes of the program go to the guest now?
    [[nodiscard]] bool may_send() const noexcept {
        return state == State::Open && readable() && guest_reads() && send_credit.available() > 0;
    }
    [[nodiscard]] bool guest_reads() const noexcept {
        return (guest_shutdown & shutdown::receive) == 0;
    }
    // Anything for the guest, be it bytes or news.
    [[nodiscard]] bool has_work() const noexcept;

  private:
    void write_failed(int error) noexcept;
    void watch_writing(bool wanted);

    const std::uint64_t id_;

  public:
    // The device's notes. `ports` and `state` are set where the two sides meet.
    State state;
    Ports ports;
    SendCredit send_credit;
    ReceiveCredit receive_credit{buffer_size};
    std::optional<Nanoseconds> deadline;  // of the state it is in
    std::uint32_t guest_shutdown = 0;     // flags the guest has sent
    std::uint32_t told_shutdown = 0;      // flags the guest has been sent
    bool owes_opening = false;            // op::request or op::response, whichever is the host's
    bool guest_asked = false;             // ... and it is op::response
    bool owes_credit_update = false;
    bool owes_credit_request = false;
    bool credit_requested = false;  // since there last was credit
    bool queued = false;            // in the device's list of those with work
    unsigned burst = 1;             // buffers to read into at once

  private:
    Fd socket_;
    std::vector<std::byte> waiting_;  // for the program; [begin_, size)
    std::size_t begin_ = 0;
    bool sending_ends_ = false;  // finish_sending() was called
    bool host_reads_ = true;
    bool readable_ = false;
    bool end_ = false;
    bool broken_ = false;
    bool hung_up_ = false;
    bool watching_writing_ = false;
    EventLoop::Watch watch_;  // ends before socket_ is closed
};

}  // namespace masu::vsock
