// virtio-vsock: stream sockets between programs in the guest and on the host (virtio 1.2, 5.10).
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/clock.hpp"
#include "base/event_loop.hpp"
#include "base/fd.hpp"
#include "base/log.hpp"
#include "base/metrics.hpp"
#include "base/result.hpp"
#include "devices/virtio/device.hpp"
#include "devices/vsock/connection.hpp"
#include "devices/vsock/packet.hpp"

namespace masu::vsock {

// The host's side is Unix stream sockets, whose making is not this device's business: whoever wants
// a port of the guest is brought by accept() and says so in a line, and for whoever the guest wants
// there is Options::connect. The guest reaches CID 2 only.
//
// A header is copied once, judged, and the copy used. Payload goes between socket and guest memory
// in one system call. No chain is held between two turns. Packets for the guest leave in this
// order: answers to packets that belong to no connection, then the connections with something to
// send in turn, each with at most max_burst buffers.
//
// Queues: rx, tx, event. Threads: see virtio::Device.
//
// Counters (group "vsock"): tx_packets, tx_bytes (of the guest); rx_packets, rx_bytes (to it);
// opened, closed (connections); refused_full (beyond Options::max_connections), refused_host
// (nobody listens for the guest), refused_guest (nobody listens in the guest, or the line was
// wrong), timeouts; malformed (packets that no guest may send), violations (of a connection's state
// or credit, which end it).
class VirtioVsock final : public virtio::Device {
  public:
    static constexpr std::size_t max_connections = 512;
    static constexpr std::size_t max_burst = 16;  // buffers

    struct Options {
        std::uint32_t guest_cid = first_guest_cid;  // check_guest_cid() has seen it
        // A connected non-blocking stream socket to who serves this port on the host; none:
        // refused.
        std::function<Fd(std::uint32_t port)> connect;
        std::size_t max_connections = VirtioVsock::max_connections;
        Nanoseconds handshake_timeout = 2'000'000'000;
        // How long the guest may take to confirm the end of a connection, and a program to read
        // what the guest sent before its own.
        Nanoseconds shutdown_timeout = 10'000'000'000;
        // After a restore: how long a driver may take to forget its connections.
        Nanoseconds reset_timeout = 5'000'000'000;
    };

    // `loop` and `clock` are borrowed and outlive the device. Destroy it on the loop's thread or
    // while the loop does not run. Fails when the host refuses a descriptor.
    [[nodiscard]] static Result<std::unique_ptr<VirtioVsock>> create(Options options,
                                                                     EventLoop& loop, Log log,
                                                                     Metrics& metrics,
                                                                     const Clock& clock);
    ~VirtioVsock() override;

    // A program of the host's has connected: a non-blocking stream socket. Without a driver in the
    // guest it is closed. Takes mutex() itself; loop's thread.
    void accept(Fd client);
    // After a restore, before the vCPUs run: the driver is told that its connections are gone
    // (VIRTIO_VSOCK_EVENT_TRANSPORT_RESET). Until it has seen that, or for reset_timeout, nothing
    // else happens. Takes mutex() itself; loop's thread.
    void arrive();

    [[nodiscard]] virtio::DeviceId id() const noexcept override { return virtio::DeviceId::Vsock; }
    [[nodiscard]] std::uint64_t features() const noexcept override { return feature::stream; }
    [[nodiscard]] std::span<const std::uint16_t> queue_sizes() const noexcept override {
        static constexpr std::array<std::uint16_t, 3> sizes{256, 256, 16};
        return sizes;
    }
    void read_config(std::uint64_t offset, std::span<std::byte> data) const noexcept override;
    void write_config(std::uint64_t offset, std::span<const std::byte> data) noexcept override;
    void activate(virtio::Activation activation) override;
    void notify(std::uint16_t index) override;
    void reset() override;
    // virtio_vsock_state.cpp. Connections are no part of it; those of the machine that was saved go
    // on there.
    [[nodiscard]] Result<virtio::SavedDevice> save() override;
    [[nodiscard]] Result<> restore(std::span<const std::byte> own) override;

  private:
    enum class QueueIndex : std::uint16_t { Rx, Tx, Event };
    static constexpr int packets_per_turn = 128;  // then other descriptors of the loop get theirs
    static constexpr std::size_t max_replies = 128;
    // Ports of the host's for connections it began.
    static constexpr std::uint32_t first_host_port = 1U << 30;
    static constexpr std::uint32_t end_of_host_ports = 1U << 31;

    struct Counters {
        explicit Counters(Metrics& metrics);
        Counter& tx_packets;
        Counter& tx_bytes;
        Counter& rx_packets;
        Counter& rx_bytes;
        Counter& opened;
        Counter& closed;
        Counter& refused_full;
        Counter& refused_host;
        Counter& refused_guest;
        Counter& timeouts;
        Counter& malformed;
        Counter& violations;
    };
    // Restored: arrive() is to come. Resetting: the driver has not seen the event yet.
    enum class Phase : std::uint8_t { Running, Restored, Resetting };
    struct PortsHash {
        std::size_t operator()(const Ports& ports) const noexcept {
            return std::hash<std::uint64_t>()(std::uint64_t{ports.guest} << 32 | ports.host);
        }
    };

    VirtioVsock(Options options, EventLoop& loop, Log log, Metrics& metrics, const Clock& clock);
    [[nodiscard]] bool running() const noexcept {
        return driver_ != nullptr && !faulted_ && phase_ == Phase::Running;
    }
    // One turn: packets of the guest, packets to it, and a timer for what did not fit.
    void serve();
    void on_socket(std::uint64_t id, std::uint32_t events);
    void on_timer();
    void arm(Nanoseconds delay);
    void fault(std::string_view why);

    // Adds a connection; none when the host refuses to watch its socket.
    [[nodiscard]] Connection* add(Connection::State state, Fd socket);
    void remove(Connection& connection);
    void greet(Connection& connection);
    [[nodiscard]] std::uint32_t free_host_port();
    // The program is cut off now, and the guest is to hear of the end. It may be gone afterwards.
    void kill(Connection& connection);
    void expire(Connection& connection);
    void set_deadline(Connection& connection, Nanoseconds after);
    // Into the list of those with work, if it has some.
    void enqueue(Connection& connection);
    [[nodiscard]] Connection* find(Ports ports) noexcept;

    // virtio_vsock_tx.cpp
    void take_packets();
    void take_packet(const virtio::Chain& chain);
    void open(const Header& request);
    void refuse(const Header& packet);
    void handle(Connection& connection, const Header& packet, const virtio::Chain& chain);
    void take_payload(Connection& connection, const Header& packet, const virtio::Chain& chain);
    void take_shutdown(Connection& connection, const Header& packet);
    void violation(Connection& connection, std::string_view why);

    // virtio_vsock_rx.cpp
    enum class Turn : std::uint8_t { More, Idle, NoBuffers, Stopped };
    void deliver();
    [[nodiscard]] Turn next_packet();
    [[nodiscard]] Turn serve_connection(Connection& connection);
    [[nodiscard]] Turn send_bytes(Connection& connection);
    [[nodiscard]] Turn send(const Header& header);
    [[nodiscard]] std::optional<Header> owed_packet(Connection& connection) const;
    void note_sent(Connection& connection, const Header& header);
    [[nodiscard]] std::optional<virtio::Chain> next_buffer();
    [[nodiscard]] std::size_t gather_room(Connection& connection);
    [[nodiscard]] Header header_for(const Connection& connection, std::uint16_t operation) const;

    // virtio_vsock_state.cpp
    void tell_reset();
    void look_whether_reset();
    void resume();

    const Options options_;
    EventLoop& loop_;
    Log log_;
    const Clock& clock_;
    Counters counters_;

    std::unordered_map<std::uint64_t, std::unique_ptr<Connection>> connections_;  // by id
    std::unordered_map<Ports, Connection*, PortsHash> by_ports_;  // those the guest knows of
    std::deque<Connection*> ready_;                               // Connection::queued
    std::deque<Header> replies_;
    // From reset() to the loop's next turn, since watches end on its thread.
    std::vector<std::unique_ptr<Connection>> graveyard_;
    std::uint64_t next_id_ = 1;
    std::uint32_t next_host_port_ = first_host_port;

    Phase phase_ = Phase::Running;
    bool restored_ = false;          // from restore() to activate()
    std::uint16_t events_left_ = 0;  // buffers the event left in its queue
    bool event_sent_ = false;
    Nanoseconds reset_deadline_ = 0;  // of Phase::Resetting

    // From activate() to reset().
    virtio::Driver* driver_ = nullptr;
    bool faulted_ = false;
    std::optional<virtio::Queue> rx_;
    std::optional<virtio::Queue> tx_;
    std::optional<virtio::Queue> event_;
    bool rx_waiting_ = false;  // for the driver to give buffers
    bool tx_pending_ = false;  // may have packets we have not taken

    std::vector<virtio::Chain> rx_chains_;  // of the burst being delivered
    std::vector<iovec> iovecs_;
    std::optional<Nanoseconds> timer_at_;  // when the timer is due, if it is armed
    std::optional<EventLoop::Timer> timer_;
};

}  // namespace masu::vsock
