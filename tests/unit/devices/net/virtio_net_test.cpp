// virtio-net as a device: configuration space, queues and their commands, link, faults and resets.
#include "devices/net/virtio_net.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>

#include "tests/unit/devices/net/virtio_net_rig.hpp"

namespace masu::net {
namespace {

using namespace fake;

unsigned link_status(const Rig& rig) {
    std::array<std::byte, 2> status{};
    rig.device->read_config(6, status);
    return load_unaligned<std::uint16_t>(status.data());
}

}  // namespace

TEST_CASE("the configuration space tells MAC, link, pairs and MTU") {
    Rig rig(2, {.mtu = 1400});
    std::array<std::byte, 12> config{};
    rig.device->read_config(0, config);
    CHECK(std::memcmp(config.data(), guest_mac.data(), 6) == 0);
    CHECK(load_unaligned<std::uint16_t>(&config[6]) == 1);
    CHECK(load_unaligned<std::uint16_t>(&config[8]) == 2);
    CHECK(load_unaligned<std::uint16_t>(&config[10]) == 1400);
    CHECK((rig.features & feature::mtu) != 0);
    CHECK((rig.features & feature::mq) != 0);
    CHECK((rig.features & feature::host_tso4) != 0);
    CHECK((rig.features & feature::host_uso) == 0);
}

TEST_CASE("queues of several pairs are served once the driver has set them") {
    Rig rig(4);
    CHECK(rig.backend.active == 1);
    rig.send(udp_frame(1), {}, 2);
    CHECK(rig.backend.sent.empty());
    CHECK(rig.command(bytes_of(std::uint8_t{4}) + bytes_of(std::uint8_t{0}) +
                      bytes_of(std::uint16_t{4})) == std::byte{0});
    CHECK(rig.backend.active == 4);
    rig.notify(5);
    REQUIRE(rig.backend.sent.size() == 1);
    CHECK(rig.backend.sent[0].queue == 2);
    rig.give_buffer(2000, 3);
    rig.backend.put(udp_frame(7), 3);
    rig.run();
    CHECK(rig.rx(3).take_used());
    CHECK(rig.driver.interrupts.back() == 6);
}

TEST_CASE("bad commands are refused") {
    Rig rig(2);
    const auto refused = [&](const Bytes& bytes) { return rig.command(bytes) == std::byte{1}; };
    const auto head = [](int c, int k) { return Bytes{std::byte(c), std::byte(k)}; };
    CHECK(refused(head(4, 0) + bytes_of(std::uint16_t{0})));
    CHECK(refused(head(4, 0) + bytes_of(std::uint16_t{3})));
    CHECK(refused(head(4, 0) + bytes_of(std::uint8_t{1})));
    CHECK(refused(head(4, 0) + bytes_of(std::uint32_t{1})));
    CHECK(refused(head(4, 1) + bytes_of(std::uint16_t{1})));
    CHECK(refused(head(0, 0) + bytes_of(std::uint8_t{1})));
    CHECK(refused(Bytes{std::byte{4}}));
    CHECK(refused(head(5, 0) + bytes_of(feature::guest_uso4)));
    CHECK(rig.count("control_refused") == 8);
    CHECK_FALSE(refused(head(5, 0) + bytes_of(feature::guest_csum | feature::guest_tso4)));
    CHECK(rig.backend.receive_offloads == (offload::csum | offload::tso4));
    // No room for the answer.
    rig.control().chain().append_readable(head(4, 0) + bytes_of(std::uint16_t{1})).build();
    rig.notify(4);
    CHECK(rig.control().take_used()->length == 0);
    CHECK(rig.driver.faults.empty());
}

TEST_CASE("without MQ the control queue is the third") {
    Rig rig(2, {}, feature::mq);
    const auto built =
        rig.rx(1)
            .chain()
            .append_readable(Bytes{std::byte{5}, std::byte{0}} + bytes_of(feature::guest_csum))
            .append_writable(1)
            .build();
    rig.notify(2);
    CHECK(rig.rx(1).take_used());
    CHECK(rig.rx(1).written(built)[0] == std::byte{0});
    CHECK(rig.backend.receive_offloads == offload::csum);
}

TEST_CASE("receive offloads follow what was negotiated, and end with a reset") {
    Rig rig(1, {}, feature::guest_tso6 | feature::guest_ufo);
    CHECK(rig.backend.receive_offloads == (offload::csum | offload::tso4 | offload::ecn));
    {
        const std::lock_guard lock(rig.device->mutex());
        rig.device->reset();
    }
    CHECK(rig.backend.receive_offloads == 0);
    // Nothing of the old life is delivered to the new one's rings by accident.
    rig.notify(0);
    rig.notify(1);
    rig.run();
    rig.rings.clear();
    for (const auto size : std::to_array<std::uint16_t>({256, 256, 64}))
        rig.rings.push_back(std::make_unique<Ring>(rig.memory, size, ring_features));
    rig.activate();
    rig.send(udp_frame(5));
    CHECK(rig.backend.sent.size() == 1);
}

TEST_CASE("a broken ring is one fault, and the device stays quiet until the reset") {
    Rig rig;
    rig.tx().chain().append_raw(rig.memory.end(), 100, 0).build();
    rig.notify(1);
    rig.notify(1);
    rig.backend.put(udp_frame(1));
    rig.give_buffer(2000);
    rig.notify(0);
    rig.run();
    CHECK(rig.driver.faults.size() == 1);
    CHECK_FALSE(rig.rx().take_used());

    Rig other;
    other.rx().put_avail_entry(0, 999);
    other.rx().set_avail_index(1);
    other.backend.put(udp_frame(1));
    other.run();
    CHECK(other.driver.faults.size() == 1);
}

TEST_CASE("a restored guest is asked to announce itself until it has") {
    Rig rig;
    rig.device->arrive(VirtioNet::Arrival::SameAddress);
    CHECK(rig.driver.config_changes == 1);
    CHECK(link_status(rig) == 3);
    const auto acknowledge = bytes_of(std::uint8_t{3}) + bytes_of(std::uint8_t{0});
    CHECK(rig.command(acknowledge) == std::byte{0});
    CHECK(link_status(rig) == 1);
    rig.send(udp_frame(5));
    CHECK(rig.backend.sent.size() == 1);

    Rig old(1, {}, feature::guest_announce);
    old.device->arrive(VirtioNet::Arrival::SameAddress);
    CHECK(old.driver.config_changes == 1);
    CHECK(link_status(old) == 1);
    CHECK(old.command(acknowledge) == std::byte{1});
}

TEST_CASE("a guest with another address has its link cut until it has seen that") {
    constexpr Nanoseconds pause = 1'000'000;
    constexpr int wait_ms = 1000;  // for the timer; it comes after 1 ms
    Rig rig;
    rig.give_buffer(2000);
    rig.device->arrive(VirtioNet::Arrival::NewAddress, pause);
    CHECK(rig.driver.config_changes == 1);
    rig.backend.put(udp_frame(1));
    // As long as the driver does not look, the link stays down.
    for (int i = 0; i < 3; ++i) {
        rig.loop->run_once(wait_ms);
        rig.clock.time += pause;
    }
    CHECK(rig.driver.config_changes == 1);
    CHECK(link_status(rig) == 0);
    rig.loop->run_once(wait_ms);  // sees that it has looked: the pause begins
    rig.clock.time += pause;
    CHECK(rig.driver.config_changes == 1);
    CHECK_FALSE(rig.rx().take_used());
    rig.loop->run_once(wait_ms);
    CHECK(rig.driver.config_changes == 2);
    CHECK(link_status(rig) == 3);
    rig.loop->run_once(wait_ms);
    CHECK(rig.rx().take_used());

    // A driver that never looks gets it back in the end.
    Rig blind;
    blind.device->arrive(VirtioNet::Arrival::NewAddress, pause);
    blind.clock.time += VirtioNet::readdress_limit;
    blind.loop->run_once(wait_ms);
    CHECK(blind.driver.config_changes == 2);
    CHECK(link_status(blind) == 3);

    // A reset ends it.
    rig.device->arrive(VirtioNet::Arrival::NewAddress, pause);
    {
        const std::lock_guard lock(rig.device->mutex());
        rig.device->reset();
    }
    CHECK(link_status(rig) == 1);
}

TEST_CASE("a backend that ends takes the link down and does not spin") {
    Rig rig;
    rig.give_buffer(2000);
    rig.backend.closed = true;
    rig.backend.put(udp_frame(1));
    rig.run();
    CHECK(rig.driver.config_changes == 1);
    CHECK(rig.count("backend_closed") == 1);
    std::array<std::byte, 2> status{};
    rig.device->read_config(6, status);
    CHECK(load_unaligned<std::uint16_t>(status.data()) == 0);
    rig.backend.room = 0;
    rig.send(udp_frame(1));
    CHECK(rig.tx().take_used());
    rig.run();
    CHECK(rig.driver.config_changes == 1);
}

}  // namespace masu::net
