// A stream socket to passt as the backend of a network device: networks without privileges.
#pragma once

#include <memory>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "base/zeroed_bytes.hpp"
#include "devices/net/backend.hpp"
#include "devices/net/frame.hpp"

namespace masu::net {

// Each frame goes behind its length (4 bytes, big-endian), as in QEMU's `-netdev stream`. One queue
// and no offloads: passt wants whole frames. A frame that was begun is finished before the next;
// meanwhile its rest waits here, in one frame's worth of memory.
class Passt final : public Backend {
  public:
    // Takes over a connected stream socket.
    [[nodiscard]] static Result<std::unique_ptr<Passt>> adopt(Fd socket);

    [[nodiscard]] unsigned queues() const noexcept override { return 1; }
    [[nodiscard]] int fd(unsigned /*queue*/) const noexcept override { return socket_.get(); }
    [[nodiscard]] Offloads offloads() const noexcept override { return 0; }
    void set_receive_offloads(Offloads /*wanted*/) noexcept override {}
    void set_active_queues(unsigned /*count*/) noexcept override {}
    [[nodiscard]] Received receive(unsigned queue, std::span<std::byte> buffer) noexcept override;
    [[nodiscard]] bool can_send(unsigned queue) noexcept override { return flush(queue); }
    [[nodiscard]] IoStatus send(unsigned queue, std::span<const iovec> packet) noexcept override;
    [[nodiscard]] bool flush(unsigned queue) noexcept override;

  private:
    static constexpr std::size_t length_size = 4;

    explicit Passt(Fd socket);
    // Bytes of the stream that are not consumed yet.
    [[nodiscard]] std::span<const std::byte> unread() const noexcept {
        return std::span(incoming_).subspan(begin_, end_ - begin_);
    }

    Fd socket_;
    ZeroedBytes incoming_;
    std::size_t begin_ = 0;
    std::size_t end_ = 0;
    std::vector<std::byte> outgoing_;  // the rest of a frame; empty most of the time
    bool closed_ = false;
};

}  // namespace masu::net
