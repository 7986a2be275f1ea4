// A guest with its three queues, and programs on the host, for tests of the socket device.
#pragma once

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.hpp"
#include "devices/vsock/virtio_vsock.hpp"
#include "tests/unit/devices/virtio/fake_driver.hpp"
#include "tests/unit/devices/virtio/test_driver.hpp"

namespace masu::vsock::fake {

using virtio::fake::TestClock;
using virtio::fake::TestDriver;

// A program's end of a connection.
struct Program {
    Fd socket;

    void write(std::string_view text) const {
        REQUIRE(::send(socket.get(), text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL) ==
                static_cast<ssize_t>(text.size()));
    }
    // As much as fits.
    std::size_t offer(std::string_view text) const {
        const auto sent =
            ::send(socket.get(), text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        return sent < 0 ? 0 : static_cast<std::size_t>(sent);
    }
    // What is there now.
    [[nodiscard]] std::string read(std::size_t most = 1 << 20) const {
        std::string text(most, '\0');
        const auto got = ::recv(socket.get(), text.data(), text.size(), MSG_DONTWAIT);
        text.resize(got < 0 ? 0 : static_cast<std::size_t>(got));
        return text;
    }
    // All there is has been read, and there will be no more.
    [[nodiscard]] bool at_end() const {
        char byte = 0;
        const auto got = ::recv(socket.get(), &byte, 1, MSG_DONTWAIT);
        return got == 0 || (got < 0 && errno == ECONNRESET);
    }
};

inline std::pair<Fd, Program> socket_pair() {
    std::array<int, 2> ends{};
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()) == 0);
    return {Fd(ends[0]), Program{Fd(ends[1])}};
}

struct Packet {
    Header header;
    std::string payload;
};

constexpr std::uint64_t ring_features =
    virtio::feature_version_1 | virtio::feature_indirect_desc | virtio::feature_event_idx;
constexpr std::uint32_t cid = 42;

// The device and its driver, with the transport's part played by hand.
struct Guest {
    static constexpr std::uint32_t buffer_bytes = 4096;  // as Linux gives
    static constexpr std::uint32_t most_payload = 64 * KiB;
    static constexpr std::uint64_t outgoing_slots = 4;
    static constexpr std::uint64_t outgoing_slot_size = most_payload + header_size;

    explicit Guest(VirtioVsock::Options options = {}, std::uint64_t features = ring_features)
        : rx(memory, 256, features), tx(memory, 256, features), event(memory, 16, features) {
        options.guest_cid = cid;
        options.connect = [this](std::uint32_t port) {
            asked.push_back(port);
            if (!listening.contains(port))
                return Fd();
            auto [ours, theirs] = socket_pair();
            if (send_buffer != 0)
                ::setsockopt(ours.get(), SOL_SOCKET, SO_SNDBUF, &send_buffer, sizeof send_buffer);
            programs.push_back(std::move(theirs));
            return std::move(ours);
        };
        device = std::move(*VirtioVsock::create(std::move(options), *loop, Log(), metrics, clock));
        buffers = memory.allocate(std::size_t{rx.size()} * buffer_bytes);
        outgoing = memory.allocate(outgoing_slots * outgoing_slot_size);
        events = memory.allocate(64);
    }
    ~Guest() {
        const std::lock_guard lock(device->mutex());
        device->reset();
    }

    void activate() {
        std::vector<std::optional<virtio::Queue>> queues;
        for (auto* ring : {&rx, &tx, &event})
            queues.emplace_back(ring->make_queue());
        activate(std::move(queues));
    }
    void activate(std::vector<std::optional<virtio::Queue>> queues) {
        const std::lock_guard lock(device->mutex());
        device->activate({.memory = &memory.guest(),
                          .features = ring_features | feature::stream,
                          .queues = std::move(queues),
                          .driver = &driver});
    }
    // Active, with so many buffers for packets.
    Guest& up(unsigned count = 128) {
        activate();
        give_buffers(count);
        return *this;
    }
    void notify(std::uint16_t queue) {
        const std::lock_guard lock(device->mutex());
        device->notify(queue);
    }
    void run(int turns = 6) {
        for (int i = 0; i < turns; ++i)
            loop->run_once(0);
    }
    // Lets time pass, and the device's timer find out.
    void pass(Nanoseconds time) {
        clock.time += time;
        for (int i = 0; i < 4; ++i)
            loop->run_once(5);
    }

    void give_buffers(unsigned count, std::uint32_t size = buffer_bytes) {
        for (unsigned i = 0; i < count; ++i) {
            const auto slot = next_buffer++ % rx.size();
            const auto address = buffers + std::uint64_t{slot} * buffer_bytes;
            const auto built =
                rx.chain().append_raw(address, size, virtio::fake::desc_write).build();
            by_head[built.head] = address;
        }
        notify(0);
    }
    // The next packet of the device; its buffer is given back.
    std::optional<Packet> take(bool give_back = true) {
        const auto used = rx.take_used();
        if (!used)
            return std::nullopt;
        ++taken;
        const auto bytes = memory.copy(by_head.at(used->id), used->length);
        Packet packet;
        REQUIRE(bytes.size() >= header_size);
        std::ranges::copy(std::span(bytes).first(header_size), wire_bytes(packet.header).begin());
        packet.payload.assign(reinterpret_cast<const char*>(bytes.data()) + header_size,
                              bytes.size() - header_size);
        CHECK(packet.header.len == packet.payload.size());
        CHECK(packet.header.dst_cid == cid);
        if (give_back)
            give_buffers(1);
        return packet;
    }
    // The same, of this kind.
    Packet expect(std::uint16_t operation) {
        run();
        auto packet = take();
        REQUIRE(packet);
        REQUIRE(packet->header.op == operation);
        return *packet;
    }
    bool quiet() {
        run();
        return rx.used_index() == taken;
    }

    void send(Header header, std::string_view payload = {}) {
        header.len = header.len == 0 ? static_cast<std::uint32_t>(payload.size()) : header.len;
        send_raw(header, payload);
    }
    void send_raw(const Header& header, std::string_view payload) {
        // Packets that the device does not take yet keep their bytes.
        const auto slot = outgoing + (next_packet++ % outgoing_slots) * outgoing_slot_size;
        REQUIRE(memory.guest().write(slot, wire_bytes(header)));
        REQUIRE(memory.guest().write(slot + header_size, std::as_bytes(std::span(payload))));
        tx.chain()
            .append_raw(slot, static_cast<std::uint32_t>(header_size + payload.size()), 0)
            .build();
        notify(1);
    }
    static Header header(std::uint16_t operation, Ports ports) {
        return {.src_cid = cid,
                .dst_cid = host_cid,
                .src_port = ports.guest,
                .dst_port = ports.host,
                .type = type_stream,
                .op = operation,
                .buf_alloc = 256 * KiB};
    }
    // A connection to a program that listens at this port.
    Program& open(std::uint32_t guest_port, std::uint32_t host_port,
                  std::uint32_t buf_alloc = 256 * KiB) {
        listening.insert(host_port);
        auto request = header(op::request, {guest_port, host_port});
        request.buf_alloc = buf_alloc;
        send(request);
        expect(op::response);
        return programs.back();
    }
    // A program that wants a port of the guest, and the REQUEST for it.
    std::pair<Program, Ports> call(std::uint32_t port) {
        auto [ours, theirs] = socket_pair();
        device->accept(std::move(ours));
        theirs.write(fmt::format("CONNECT {}\n", port));
        const auto request = expect(op::request).header;
        CHECK(request.dst_port == port);
        return {std::move(theirs), Ports{.guest = port, .host = request.src_port}};
    }
    std::uint64_t count(const char* name) { return metrics.counter("vsock", name).value(); }

    virtio::fake::Memory memory{2 * MiB};
    TestClock clock;
    TestDriver driver;
    Metrics metrics;
    std::unique_ptr<EventLoop> loop = std::move(*EventLoop::create());
    virtio::fake::Ring rx;
    virtio::fake::Ring tx;
    virtio::fake::Ring event;
    GuestAddress buffers;
    GuestAddress outgoing;
    std::uint64_t next_packet = 0;
    GuestAddress events;
    unsigned next_buffer = 0;
    std::map<std::uint32_t, GuestAddress> by_head;
    std::uint16_t taken = 0;
    int send_buffer = 0;  // of the device's end of a connection; 0: the host's default
    std::set<std::uint32_t> listening;
    std::vector<std::uint32_t> asked;
    std::deque<Program> programs;
    std::unique_ptr<VirtioVsock> device;
};

}  // namespace masu::vsock::fake
