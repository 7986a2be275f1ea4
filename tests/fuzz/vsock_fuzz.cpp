// virtio-vsock: packets and buffers of a hostile driver, and programs that write, read, shut down
// and hang up when it hurts. Whatever they do, bytes stay within what either side may send, and the
// device lives.
#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <deque>
#include <memory>

#include "base/bytes.hpp"
#include "devices/vsock/connect_line.hpp"
#include "devices/vsock/virtio_vsock.hpp"
#include "tests/fuzz/input.hpp"
#include "tests/unit/devices/virtio/fake_driver.hpp"
#include "tests/unit/devices/virtio/test_driver.hpp"

using namespace masu;
using namespace masu::vsock;
using fuzz::Input;
using fuzz::require;
using virtio::fake::Memory;
using virtio::fake::Ring;
using virtio::fake::TestClock;

namespace {

constexpr std::uint32_t cid = 3;
constexpr std::size_t max_programs = 24;

class Driver final : public virtio::Driver {
  public:
    void interrupt_queue(std::uint16_t /*queue*/) override {}
    void interrupt_config() override {}
    void fault(std::string_view /*why*/) override { faulted = true; }
    bool faulted = false;
};

struct World {
    std::pair<Fd, Fd> pair() {
        std::array<int, 2> ends{};
        require(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()) ==
                0);
        return {Fd(ends[0]), Fd(ends[1])};
    }
    Fd program() {
        auto [ours, theirs] = pair();
        programs.push_back(std::move(theirs));
        if (programs.size() > max_programs)
            programs.pop_front();
        return std::move(ours);
    }
    // Ports are few, so that the fuzzer meets its own connections again.
    Header header(Input& input) {
        auto header = input.take<Header>();
        const auto spice = input.take<std::uint8_t>();
        if ((spice & 1) == 0)
            header.src_cid = cid;
        if ((spice & 2) == 0)
            header.dst_cid = host_cid;
        if ((spice & 4) == 0)
            header.type = type_stream;
        if ((spice & 8) == 0)
            header.op = static_cast<std::uint16_t>(header.op % 9U);
        header.src_port %= 4;
        header.dst_port %= 4;
        if ((spice & 16) == 0)
            header.dst_port += 1U << 30;
        return header;
    }
    void step(Input& input);
    void notify(std::uint16_t queue) {
        const std::lock_guard lock(device->mutex());
        device->notify(queue);
    }

    Memory memory{4 * MiB};
    TestClock clock;
    Driver driver;
    Metrics metrics;
    std::unique_ptr<EventLoop> loop = std::move(*EventLoop::create());
    std::deque<Fd> programs;
    std::vector<std::unique_ptr<Ring>> rings;
    std::unique_ptr<VirtioVsock> device;
};

void World::step(Input& input) {
    const auto kind = input.take<std::uint8_t>();
    const auto detail = input.take<std::uint8_t>();
    const int socket = programs.empty() ? -1 : programs[detail % programs.size()].get();
    std::array<char, 4096> bytes{};
    switch (kind % 10) {
        case 0:
        case 1: {
            auto packet = header(input);
            if (detail % 4 != 0)
                packet.len = detail * 16U;
            rings[1]
                ->chain()
                .append_readable(wire_bytes(packet))
                .append_readable(std::string(detail * 16U, 'p'))
                .build();
            notify(1);
            break;
        }
        case 2: {
            auto chain = rings[detail % 3]->chain();
            for (int part = detail % 5; part >= 0; --part)
                chain.append_readable(input.take_bytes(input.take<std::uint8_t>()));
            chain.build();
            notify(static_cast<std::uint16_t>(detail % 3));
            break;
        }
        case 3:
            for (int i = 0; i < detail % 8; ++i)
                rings[0]->chain().append_writable(44U + detail).append_writable(detail).build();
            notify(0);
            break;
        case 4: {
            auto ours = program();
            const auto text = input.take_bytes(detail % 40);
            std::ignore = ::send(programs.back().get(), text.data(), text.size(), MSG_NOSIGNAL);
            device->accept(std::move(ours));
            break;
        }
        case 5: {
            auto ours = program();
            const auto line = fmt::format("CONNECT {}\n", detail % 4);
            std::ignore = ::send(programs.back().get(), line.data(), line.size(), MSG_NOSIGNAL);
            device->accept(std::move(ours));
            break;
        }
        case 6:
            std::ignore = ::send(socket, bytes.data(), detail * 16U, MSG_NOSIGNAL | MSG_DONTWAIT);
            break;
        case 7:
            std::ignore = ::recv(socket, bytes.data(), bytes.size(), MSG_DONTWAIT);
            break;
        case 8:
            if (detail % 8 < 3)
                ::shutdown(socket, detail % 8);
            else if (!programs.empty())
                programs.erase(programs.begin() + detail % programs.size());
            break;
        default:
            clock.time += Nanoseconds{detail} * 100'000'000;
            rings[2]->chain().append_writable(detail % 8).build();
            notify(2);
    }
    loop->run_once(0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input(data, size);
    World world;
    const auto set_up = input.take<std::uint8_t>();
    world.device = std::move(*VirtioVsock::create(
        {.guest_cid = cid,
         .connect = [&](std::uint32_t port) { return port % 2 == 0 ? world.program() : Fd(); },
         .max_connections = 12},
        *world.loop, Log(), world.metrics, world.clock));
    const auto features = virtio::feature_version_1 | virtio::feature_indirect_desc |
                          ((set_up & 1) != 0 ? virtio::feature_event_idx : 0);
    std::vector<std::optional<virtio::Queue>> queues;
    for (int i = 0; i < 3; ++i) {
        world.rings.push_back(std::make_unique<Ring>(world.memory, 16, features));
        queues.emplace_back(world.rings.back()->make_queue());
    }
    const bool restored = (set_up & 2) != 0;
    {
        const std::lock_guard lock(world.device->mutex());
        if (restored)
            require(world.device->restore(world.device->save()->own).has_value());
        world.device->activate({.memory = &world.memory.guest(),
                                .features = features,
                                .queues = std::move(queues),
                                .driver = &world.driver});
    }
    if (restored)
        world.device->arrive();
    for (int step = 0; step < 200 && !input.done() && !world.driver.faulted; ++step) {
        if (world.memory.mark() > 3 * MiB)
            break;
        world.step(input);
    }
    {
        const std::lock_guard lock(world.device->mutex());
        std::ignore = world.device->save();
        world.device->reset();
    }
    world.loop->run_once(0);
    const auto total = [&](const char* name) {
        return world.metrics.counter("vsock", name).value();
    };
    require(total("opened") == total("closed"));
    return 0;
}
