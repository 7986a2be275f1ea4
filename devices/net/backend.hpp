// Where an interface's frames come from and go to: the host's side of a network device.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "devices/net/offload.hpp"

namespace masu::net {

enum class IoStatus : std::uint8_t {
    Done,
    Again,    // nothing there / no room now; the descriptor's readiness tells when
    Dropped,  // this frame is lost, the next may go
    Closed,   // the other side is gone for good
};

struct Received {
    IoStatus status = IoStatus::Again;
    std::size_t size = 0;  // bytes in the buffer: the NetHeader and the frame
};

// One or more queues of frames, each with a descriptor to wait on. Never blocks. One thread at a
// time; it outlives the device that uses it and is handed from one to the next when a guest
// reboots.
class Backend {
  public:
    virtual ~Backend() = default;

    [[nodiscard]] virtual unsigned queues() const noexcept = 0;
    // For epoll: readable when a frame is there, writable when send() may work again.
    [[nodiscard]] virtual int fd(unsigned queue) const noexcept = 0;
    // What it can finish for frames sent to it, and leave unfinished in frames it gives.
    [[nodiscard]] virtual Offloads offloads() const noexcept = 0;

    // What may be left unfinished in frames received from here on; a subset of offloads().
    virtual void set_receive_offloads(Offloads wanted) noexcept = 0;
    // Frames come from the first `count` queues only (1 to queues()).
    virtual void set_active_queues(unsigned count) noexcept = 0;

    // The next frame of a queue with a NetHeader before it. The buffer holds both at their largest.
    [[nodiscard]] virtual Received receive(unsigned queue,
                                           std::span<std::byte> buffer) noexcept = 0;
    // Whether send() would take a frame now.
    [[nodiscard]] virtual bool can_send(unsigned queue) noexcept = 0;
    // `packet` begins with sizeof(NetHeader) bytes of judged header, in an iovec of their own. The
    // next is the caller's private copy of all of the frame or its first 2048 bytes, and no longer
    // what it was when send() returns.
    [[nodiscard]] virtual IoStatus send(unsigned queue, std::span<const iovec> packet) noexcept = 0;
    // Goes on with what an earlier send() could not finish; whether nothing is left.
    [[nodiscard]] virtual bool flush(unsigned queue) noexcept = 0;
};

}  // namespace masu::net
