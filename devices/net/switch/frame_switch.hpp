// A switch between stream sockets with passt's framing: the other end of monitors' interfaces.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"
#include "devices/net/frame.hpp"
#include "devices/net/switch/switch_table.hpp"

namespace masu::net {

struct PortCounters {
    std::uint64_t received_frames = 0;  // of the port's guest
    std::uint64_t received_bytes = 0;
    std::uint64_t sent_frames = 0;  // to it
    std::uint64_t sent_bytes = 0;
    // Frames that went nowhere: by the sender, but those for a slow receiver, by the receiver.
    std::array<std::uint64_t, switch_drop_count> dropped{};
};

// Loop thread. What a port sends is read in pieces of a fixed size, one a turn, so that no port
// starves another. What waits for a port is bounded: a frame that finds no room is dropped, and
// counted, and the sender goes on.
class FrameSwitch {
  public:
    // Of what waits for one port, beside what its socket holds.
    static constexpr std::size_t queue_size = 256 * 1024;

    struct Port {
        std::string name;
        PortAddresses addresses;
        PortCounters counters;
    };

    // `left` is called when a port's other end has gone, after it was removed. The loop outlives
    // the switch.
    FrameSwitch(EventLoop& loop, std::function<void(const Port&)> left)
        : loop_(loop), left_(std::move(left)) {}

    // Takes over a connected stream socket. Refused when another port has one of the addresses.
    [[nodiscard]] Result<> add(Fd socket, std::string name, const PortAddresses& addresses);
    [[nodiscard]] std::size_t size() const noexcept { return links_.size(); }
    [[nodiscard]] std::vector<Port> ports() const;

  private:
    // A port's socket and what is on its way through it.
    struct Link {
        Port port;
        Fd socket;
        std::unique_ptr<std::byte[]> incoming;
        std::size_t incoming_end = 0;
        std::unique_ptr<std::byte[]> outgoing;
        std::size_t outgoing_begin = 0;
        std::size_t outgoing_end = 0;
        bool waits_for_room = false;  // EPOLLOUT is watched
        bool touched = false;         // has something new to send
        EventLoop::Watch watch;
    };

    void handle(PortId id, std::uint32_t events);
    // False: the other end is gone, or out of step.
    [[nodiscard]] bool read(PortId id, Link& link);
    void forward(PortId from, Link& link, std::span<const std::byte> frame);
    [[nodiscard]] static bool queue(Link& link, std::span<const std::byte> frame);
    void flush(Link& link);
    void flush_touched();

    EventLoop& loop_;
    std::function<void(const Port&)> left_;
    SwitchTable table_;
    std::map<PortId, std::unique_ptr<Link>> links_;
    std::vector<Link*> touched_;  // within one turn
    PortId next_id_ = 1;
};

}  // namespace masu::net
