// virtio-net: an interface of the guest (virtio 1.2, 5.1).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/event_loop.hpp"
#include "base/log.hpp"
#include "base/metrics.hpp"
#include "base/rate_limiter.hpp"
#include "base/result.hpp"
#include "base/zeroed_bytes.hpp"
#include "devices/net/backend.hpp"
#include "devices/net/frame.hpp"
#include "devices/net/frame_filter.hpp"
#include "devices/net/guest_services.hpp"
#include "devices/net/mac_translation.hpp"
#include "devices/net/offload.hpp"
#include "devices/virtio/device.hpp"

namespace masu::net {

// From the guest: header and packet headers are copied once, judged, and the judged copy is what is
// sent, followed by the rest of the payload straight from guest memory. To the guest: frames arrive
// in a private buffer, are judged there, and then written into the driver's buffers. No chain is
// held between two turns: one that cannot be served yet goes back into its ring, so order within a
// queue, and so within a flow, is kept.
//
// Queues: receiveq1, transmitq1, ..., and the control queue last. Threads: see virtio::Device.
//
// Counters (group "net_<id>"): rx_packets, rx_bytes, tx_packets, tx_bytes (that passed);
// rx_denied, tx_denied (by the filter); rx_dropped (no buffer can hold it, or it claims to be from
// the monitor), tx_dropped (the backend refused it); tx_malformed; rx_throttled, tx_throttled
// (waits begun); service_packets (answered by the monitor); control_refused; backend_closed.
class VirtioNet final : public virtio::Device {
  public:
    static constexpr std::uint16_t queue_size = 256;
    static constexpr std::uint16_t control_queue_size = 64;

    struct Options {
        MacAddress mac{};
        std::optional<std::uint16_t> mtu;
        unsigned queue_pairs = 1;  // 1 to the number of vCPUs; no more than the backend has
        RateLimiter::Limits rx_limits;
        RateLimiter::Limits tx_limits;
    };

    // Everything is borrowed and outlives the device; `services` may be null. Destroy it on the
    // loop's thread or while the loop does not run. Fails when the host refuses descriptors.
    [[nodiscard]] static Result<std::unique_ptr<VirtioNet>> create(
        std::string id, Backend& backend, FrameFilter& filter, GuestServices* services,
        Options options, EventLoop& loop, Log log, Metrics& metrics, const Clock& clock);
    ~VirtioNet() override;

    // Where a restored machine goes on. SameAddress: the guest is asked to announce itself
    // (VIRTIO_NET_F_GUEST_ANNOUNCE), so that a network that has not seen it yet, or has seen it
    // elsewhere, learns its MAC. NewAddress: its link goes down, and stays so for `pause` after
    // the driver has seen that, upon which the guest asks for an address again.
    enum class Arrival : std::uint8_t { SameAddress, NewAddress };
    // Longer than Linux holds a change of the carrier back (linkwatch: one second).
    static constexpr Nanoseconds readdress_pause = 2'000'000'000;
    // A driver that never looks gets its link back after so long.
    static constexpr Nanoseconds readdress_limit = 60'000'000'000;
    // After a restore, before the vCPUs run. Takes mutex() itself; loop's thread.
    void arrive(Arrival arrival, Nanoseconds pause = readdress_pause);

    // Takes mutex() itself; loop's thread. Replaces the limits named (see RateLimiter::update).
    void update_limits(const RateLimiter::Limits& rx, const RateLimiter::Limits& tx);

    [[nodiscard]] virtio::DeviceId id() const noexcept override { return virtio::DeviceId::Net; }
    [[nodiscard]] std::uint64_t features() const noexcept override;
    [[nodiscard]] std::span<const std::uint16_t> queue_sizes() const noexcept override {
        return queue_sizes_;
    }
    void read_config(std::uint64_t offset, std::span<std::byte> data) const noexcept override;
    void write_config(std::uint64_t offset, std::span<const std::byte> data) noexcept override;
    void activate(virtio::Activation activation) override;
    void notify(std::uint16_t index) override;
    void reset() override;
    // virtio_net_state.cpp
    [[nodiscard]] Result<virtio::SavedDevice> save() override;
    [[nodiscard]] Result<> restore(std::span<const std::byte> own) override;

  private:
    static constexpr int chains_per_turn = 256;  // then other descriptors of the loop get theirs
    static constexpr int frames_per_turn = 128;
    // So much of each frame of the guest is copied at once: all of an unsegmented one, all headers
    // of a segmented one.
    static constexpr std::size_t head_size = 2048;
    static_assert(head_size >= max_header_bytes && head_size >= MacTranslation::depth);

    struct Pair {
        std::optional<virtio::Queue> rx;
        std::optional<virtio::Queue> tx;
        EventLoop::Watch watch;     // of the backend's descriptor
        std::uint32_t watched = 0;  // the events it waits for
        bool rx_waiting = false;    // for the driver to give buffers
        bool tx_pending = false;    // may have chains we have not taken
        bool tx_blocked = false;    // the backend has no room
        bool tx_throttled = false;  // and counted as such
        // A frame that was received and judged but not delivered yet.
        ZeroedBytes frame;
        std::size_t frame_size = 0;
        bool rx_admitted = false;   // its tokens are taken
        bool rx_throttled = false;  // it waits for tokens
    };
    struct Counters {
        Counters(Metrics& metrics, const std::string& group);
        Counter& rx_packets;
        Counter& rx_bytes;
        Counter& tx_packets;
        Counter& tx_bytes;
        Counter& rx_denied;
        Counter& tx_denied;
        Counter& rx_dropped;
        Counter& tx_dropped;
        Counter& tx_malformed;
        Counter& rx_throttled;
        Counter& tx_throttled;
        Counter& service_packets;
        Counter& control_refused;
        Counter& backend_closed;
    };
    enum class Outcome : std::uint8_t { Served, Wait };

    VirtioNet(std::string id, Backend& backend, FrameFilter& filter, GuestServices* services,
              const Options& options, EventLoop& loop, Log log, Metrics& metrics,
              const Clock& clock);
    [[nodiscard]] Result<> watch_backend();
    void watch_for(std::size_t pair) noexcept;
    void on_backend(std::size_t pair, std::uint32_t events);
    void on_timer();
    void arm(Nanoseconds delay);
    void backend_closed();
    void fault(const char* why);
    [[nodiscard]] std::size_t control_index() const noexcept;

    // virtio_net_tx.cpp
    void transmit(std::size_t pair);
    struct TxFrame {
        NetHeader header;             // the driver's
        std::size_t size = 0;         // of the frame; 0 when it is no proper one
        std::span<std::byte> copied;  // the private copy of its beginning, or of all of it
    };
    [[nodiscard]] bool take_burst(virtio::Queue& queue, std::size_t most);
    void copy_head(const virtio::Chain& chain, std::size_t place);
    [[nodiscard]] Outcome transmit_burst(Pair& pair, unsigned queue);
    [[nodiscard]] Outcome transmit_one(Pair& pair, unsigned queue, std::size_t place);
    void forward(unsigned queue, std::size_t place);
    [[nodiscard]] Action judge_frame(std::size_t place, bool changed);
    [[nodiscard]] std::span<const iovec> gather(const virtio::Chain& chain, NetHeader& header,
                                                const TxFrame& frame);
    void serve_guest(const virtio::Chain& chain, const TxFrame& frame);
    [[nodiscard]] std::span<std::byte> whole_copy(const virtio::Chain& chain, const TxFrame& frame);

    // virtio_net_rx.cpp
    void receive(std::size_t pair);
    [[nodiscard]] bool next_frame(Pair& pair, unsigned queue);
    [[nodiscard]] bool admit(Pair& pair, std::size_t size);
    void deliver_services();
    void answer_guest(std::span<const std::byte> frame);
    enum class Delivery : std::uint8_t { Delivered, NoBuffers, Dropped, Fault };
    [[nodiscard]] Delivery deliver(virtio::Queue& queue, std::span<std::byte> packet);

    // virtio_net_control.cpp
    void serve_control();
    [[nodiscard]] bool control(const virtio::Chain& chain);
    void set_active_pairs(unsigned count);

    // virtio_net_state.cpp
    struct Restored {
        std::uint64_t guest_offloads = 0;
        unsigned active_pairs = 1;
    };
    void resume_restored();
    void on_cut_timer();

    // The link's state as the driver may see it.
    [[nodiscard]] bool link_is_up() const noexcept { return link_up_ && !cut_until_; }

    const std::string id_;
    Backend& backend_;
    FrameFilter& filter_;
    GuestServices* services_;
    const Options options_;
    EventLoop& loop_;
    Log log_;
    const Clock& clock_;
    Counters counters_;
    RateLimiter rx_limiter_;
    RateLimiter tx_limiter_;
    std::vector<std::uint16_t> queue_sizes_;
    bool link_up_ = true;  // of the backend
    // While the link is cut for Arrival::NewAddress: when it comes back. The driver's first look at
    // the status sets cut_seen_.
    std::optional<Nanoseconds> cut_until_;
    mutable bool cut_seen_ = false;
    Nanoseconds cut_pause_ = 0;
    bool announce_ = false;             // the driver has been asked and has not acknowledged
    std::optional<Restored> restored_;  // from restore() to activate()

    // From activate() to reset().
    virtio::Driver* driver_ = nullptr;
    std::uint64_t negotiated_ = 0;
    Offloads tx_offloads_ = 0;
    std::uint64_t driver_offloads_ = 0;  // feature bits of what frames for it may be
    bool mergeable_ = false;
    bool faulted_ = false;
    unsigned active_pairs_ = 1;
    std::optional<virtio::Queue> control_;
    bool control_pending_ = false;  // may have commands we have not taken

    std::vector<Pair> pairs_;
    // What is being sent: chains and the beginnings of their frames; and a frame copied whole.
    std::vector<virtio::Chain> tx_chains_;
    std::array<TxFrame, FrameFilter::max_burst> tx_frames_;
    ZeroedBytes tx_heads_;
    ZeroedBytes tx_buffer_;
    std::vector<iovec> tx_iovecs_;
    std::vector<virtio::Chain> rx_chains_;   // of the frame being delivered
    std::vector<std::byte> service_packet_;  // header and frame of an answer that found no buffer
    std::vector<std::byte> answer_packet_;
    std::optional<Nanoseconds> timer_at_;  // when the timer is due, if it is armed
    std::optional<EventLoop::Timer> timer_;
    std::optional<EventLoop::Timer> cut_timer_;
};

}  // namespace masu::net
