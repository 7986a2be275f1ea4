#include "vmm/kvm/irq_routes.hpp"

#include <doctest/doctest.h>

#include <map>

using namespace masu;
using namespace masu::kvm;

namespace {

// Keeps the table as KVM would, and which eventfds hang on which GSI.
class FakeGate final : public InterruptGate {
  public:
    Result<> set_routes(std::span<const kvm_irq_routing_entry> routes) override {
        ++tables;
        if (refuse)
            return fail("refused");
        table.clear();
        for (const auto& route : routes)
            table[route.gsi] = {
                route.u.msi.address_lo | static_cast<std::uint64_t>(route.u.msi.address_hi) << 32,
                route.u.msi.data};
        return {};
    }
    Result<> attach(unsigned gsi, const EventFd& event) override {
        if (attached.size() == attach_limit)
            return fail("no more");
        attached[gsi] = &event;
        return {};
    }
    void detach(unsigned gsi, const EventFd& /*event*/) noexcept override { attached.erase(gsi); }
    void send(const MsiMessage& message) noexcept override { sent.push_back(message); }

    std::map<unsigned, MsiMessage> table;
    std::map<unsigned, const EventFd*> attached;
    std::vector<MsiMessage> sent;
    unsigned tables = 0;
    std::size_t attach_limit = 1000;
    bool refuse = false;
};

constexpr MsiMessage edge(std::uint32_t vector) {
    return {0xfee0'0000, vector};
}
constexpr MsiMessage level(std::uint32_t vector) {
    return {0xfee0'0000, vector | 1U << 15 | 1U << 14};
}

struct Fixture {
    FakeGate gate;
    IrqRoutes routes{gate};
    std::unique_ptr<MsiBank> bank(unsigned vectors) {
        auto made = routes.create_bank(vectors);
        REQUIRE(made);
        return std::move(*made);
    }
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "many route changes make one table, at the first signal") {
    const auto msix = bank(8);
    for (unsigned i = 0; i < 8; ++i)
        msix->route(i, edge(0x30 + i));
    CHECK(gate.tables == 0);
    msix->signal(3);
    CHECK(gate.tables == 1);
    CHECK(gate.table.size() == 8);
    CHECK(gate.table.at(24 + 3) == edge(0x33));
    CHECK(gate.attached.at(24 + 3)->take() == 1);
    CHECK(gate.attached.at(24 + 4)->take() == 0);
    msix->signal(4);
    CHECK(gate.tables == 1);
}

TEST_CASE_FIXTURE(Fixture, "a masked index signals nothing, and unmasking it unchanged is free") {
    const auto msix = bank(1);
    msix->signal(0);
    msix->route(0, edge(0x40));
    msix->route(0, std::nullopt);
    msix->signal(0);
    CHECK(gate.tables == 0);
    msix->route(0, edge(0x40));
    msix->signal(0);
    msix->route(0, std::nullopt);
    msix->route(0, edge(0x40));
    msix->signal(0);
    CHECK(gate.tables == 1);
    CHECK(gate.attached.at(24)->take() == 2);
    msix->route(0, edge(0x41));
    msix->signal(0);
    CHECK(gate.tables == 2);
    CHECK(gate.table.at(24) == edge(0x41));
}

TEST_CASE_FIXTURE(Fixture, "an edge-triggered pin needs no table, a level-triggered one does") {
    auto& ioapic = routes.ioapic();
    ioapic.route(4, edge(0x34));
    ioapic.signal(4);
    CHECK(gate.tables == 0);
    CHECK(gate.sent == std::vector{edge(0x34)});
    ioapic.route(9, level(0x39));
    ioapic.signal(9);
    CHECK(gate.tables == 1);
    CHECK(gate.table == std::map<unsigned, MsiMessage>{{9, level(0x39)}});
    // Masked, it stays: the interrupt it sent before may still wait for its end.
    ioapic.route(9, std::nullopt);
    REQUIRE(routes.commit());
    CHECK(gate.table.contains(9));
    ioapic.signal(9);
    CHECK(gate.sent.size() == 2);
}

TEST_CASE_FIXTURE(Fixture, "banks get rows of their own and give them back") {
    auto first = bank(3);
    auto second = bank(2);
    CHECK(gate.attached.size() == 5);
    first->route(0, edge(0x50));
    second->route(1, edge(0x51));
    REQUIRE(routes.commit());
    CHECK(gate.table == std::map<unsigned, MsiMessage>{{24, edge(0x50)}, {28, edge(0x51)}});
    first.reset();
    CHECK(gate.attached.size() == 2);
    REQUIRE(routes.commit());
    CHECK(gate.table == std::map<unsigned, MsiMessage>{{28, edge(0x51)}});
    const auto small = bank(2);  // into the gap
    const auto large = bank(4);  // behind all
    large->route(0, edge(0x60));
    small->route(0, edge(0x61));
    REQUIRE(routes.commit());
    CHECK(gate.table.at(24) == edge(0x61));
    CHECK(gate.table.at(29) == edge(0x60));
}

TEST_CASE_FIXTURE(Fixture, "a guest's nonsense costs that guest its interrupt, nothing else") {
    const auto msix = bank(2);
    msix->route(0, MsiMessage{0x11'fee0'0000, 0x40});  // KVM would refuse the whole table
    msix->route(1, edge(0x41));
    msix->signal(0);
    msix->signal(1);
    CHECK(gate.table == std::map<unsigned, MsiMessage>{{25, edge(0x41)}});
    msix->route(99, edge(0x42));
    msix->signal(99);
    CHECK(gate.tables == 1);
}

TEST_CASE_FIXTURE(Fixture, "what KVM refuses is tried again at the next signal") {
    const auto msix = bank(1);
    msix->route(0, edge(0x40));
    gate.refuse = true;
    msix->signal(0);
    CHECK(gate.attached.at(24)->take() == 0);
    CHECK_FALSE(routes.commit());
    gate.refuse = false;
    msix->signal(0);
    CHECK(gate.attached.at(24)->take() == 1);
}

TEST_CASE_FIXTURE(Fixture, "too many interrupts are an error that leaves nothing behind") {
    CHECK_FALSE(routes.create_bank(4096 - 24 + 1));
    CHECK_FALSE(routes.create_bank(0xffff'ffff));
    gate.attach_limit = 2;
    CHECK_FALSE(routes.create_bank(3));
    CHECK(gate.attached.empty());
    CHECK(routes.create_bank(2));
}
