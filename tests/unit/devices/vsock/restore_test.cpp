// virtio-vsock: saved, restored, and the driver told that its connections are gone.
#include <doctest/doctest.h>

#include "tests/unit/devices/vsock/fake_guest.hpp"

using namespace masu;
using namespace masu::vsock;
using namespace masu::vsock::fake;

namespace {

virtio::SavedDevice save(Guest& guest) {
    const std::lock_guard lock(guest.device->mutex());
    auto saved = guest.device->save();
    REQUIRE(saved);
    return *std::move(saved);
}

// In the place of the device that was saved comes another one, as in another process.
void restore(Guest& guest, const virtio::SavedDevice& saved, VirtioVsock::Options options = {}) {
    {
        const std::lock_guard lock(guest.device->mutex());
        guest.device->reset();
    }
    options.guest_cid = cid;
    options.connect = [&guest](std::uint32_t port) {
        guest.asked.push_back(port);
        auto [ours, theirs] = socket_pair();
        guest.programs.push_back(std::move(theirs));
        return std::move(ours);
    };
    guest.programs.clear();
    guest.device = std::move(
        *VirtioVsock::create(std::move(options), *guest.loop, Log(), guest.metrics, guest.clock));
    std::vector<std::optional<virtio::Queue>> queues;
    for (auto* ring : {&guest.rx, &guest.tx, &guest.event}) {
        queues.emplace_back(ring->make_queue());
        queues.back()->set_position(*saved.queues[queues.size() - 1]);
    }
    {
        const std::lock_guard lock(guest.device->mutex());
        REQUIRE(guest.device->restore(saved.own));
    }
    guest.activate(std::move(queues));
    for (std::uint16_t queue = 0; queue < 3; ++queue)
        guest.notify(queue);  // the transport sees to that
}

void give_event(Guest& guest) {
    guest.event.chain().append_raw(guest.events, 4, virtio::fake::desc_write).build();
    guest.notify(2);
}

}  // namespace

TEST_CASE("the driver hears of the reset before anything else, and then all goes on") {
    Guest guest;
    guest.up();
    for (int i = 0; i < 4; ++i)
        give_event(guest);
    auto& old = guest.open(1000, 80);
    auto [caller, ports] = guest.call(52);
    guest.send(Guest::header(op::response, ports));
    old.write("never delivered");
    const auto saved = save(guest);
    restore(guest, saved);
    CHECK(caller.read() == fmt::format("OK {}\n", ports.host));
    CHECK(caller.at_end());

    const auto before = guest.rx.used_index();
    auto [ours, early] = socket_pair();
    early.write("CONNECT 52\n");
    guest.device->accept(std::move(ours));
    guest.send(Guest::header(op::rw, {1000, 80}), "of the old connection");
    guest.send(Guest::header(op::request, {1001, 80}));
    guest.run();
    CHECK(guest.rx.used_index() == before);
    CHECK_FALSE(guest.event.take_used());

    guest.driver.interrupts.clear();
    guest.device->arrive();
    const auto event = guest.event.take_used();
    REQUIRE(event);
    CHECK(event->length == 4);
    CHECK(guest.memory.get<std::uint32_t>(guest.events) == event_transport_reset);
    CHECK(guest.driver.interrupts == std::vector<std::uint16_t>{2});
    guest.run();
    CHECK(guest.rx.used_index() == before);
    CHECK(guest.asked.size() == 1);

    give_event(guest);  // it has seen the event
    guest.run();
    CHECK(guest.asked.size() == 2);
    CHECK(guest.rx.used_index() == before + 3);
    CHECK_FALSE(guest.event.take_used());
}

TEST_CASE("ports go on where they were, so that no old connection gets a new one's packets") {
    Guest guest;
    guest.up();
    give_event(guest);
    const auto [caller, ports] = guest.call(52);
    const auto saved = save(guest);
    restore(guest, saved);
    guest.device->arrive();
    give_event(guest);
    const auto [second, next] = guest.call(52);
    CHECK(next.host == ports.host + 1);
}

TEST_CASE("a driver that does not look, or cannot be told, is not waited for for ever") {
    Guest guest;
    guest.up();
    SUBCASE("an event nobody takes note of") {
        give_event(guest);
        const auto saved = save(guest);
        restore(guest, saved, {.reset_timeout = 1'000'000});
        guest.device->arrive();
        CHECK(guest.event.take_used());
    }
    SUBCASE("no buffer for the event") {
        const auto saved = save(guest);
        restore(guest, saved, {.reset_timeout = 1'000'000});
        guest.device->arrive();
        CHECK_FALSE(guest.event.take_used());
    }
    guest.send(Guest::header(op::rw, {1000, 80}), "old");
    CHECK(guest.quiet());
    guest.pass(2'000'000);
    guest.expect(op::rst);
}

TEST_CASE("a buffer that comes late gets the event") {
    Guest guest;
    guest.up();
    const auto saved = save(guest);
    restore(guest, saved);
    guest.device->arrive();
    give_event(guest);
    CHECK(guest.event.take_used());
    guest.send(Guest::header(op::rw, {1000, 80}), "old");
    CHECK(guest.quiet());
    give_event(guest);
    guest.expect(op::rst);
}

TEST_CASE("an event buffer without room is the driver's fault") {
    Guest guest;
    guest.up();
    guest.event.chain().append_raw(guest.events, 3, virtio::fake::desc_write).build();
    const auto saved = save(guest);
    restore(guest, saved);
    guest.device->arrive();
    CHECK(guest.driver.faults.size() == 1);
}

TEST_CASE("a machine that was saved goes on with its connections") {
    Guest guest;
    guest.up();
    auto& program = guest.open(1000, 80);
    std::ignore = save(guest);
    program.write("still here");
    CHECK(guest.expect(op::rw).payload == "still here");
    CHECK_FALSE(guest.event.take_used());
}

TEST_CASE("a machine saved before its driver came starts as any other") {
    Guest guest;
    const auto saved = save(guest);
    CHECK(saved.queues.empty());
    {
        const std::lock_guard lock(guest.device->mutex());
        REQUIRE(guest.device->restore(saved.own));
    }
    guest.device->arrive();
    guest.up();
    guest.open(1000, 80);
}

TEST_CASE("a state that is none is refused") {
    Guest guest;
    const auto good = save(guest).own;
    const auto refused = [&](auto spoil) {
        auto bad = good;
        spoil(bad);
        const std::lock_guard lock(guest.device->mutex());
        const auto restored = guest.device->restore(bad);
        return !restored && !restored.error().message.empty();
    };
    CHECK(refused([](auto& own) { own.clear(); }));
    CHECK(refused([](auto& own) { own.resize(15); }));
    CHECK(refused([](auto& own) { own.resize(17); }));
    CHECK(refused([](auto& own) { own[0] ^= std::byte{1}; }));   // another CID
    CHECK(refused([](auto& own) { own[7] = std::byte{0}; }));    // a port of somebody else
    CHECK(refused([](auto& own) { own[7] = std::byte{128}; }));  // ... or beyond
    CHECK(refused([](auto& own) { own[8] = std::byte{1}; }));
    CHECK_FALSE(refused([](auto&) {}));
}
