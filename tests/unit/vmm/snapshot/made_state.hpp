// A machine state with something in every part, for tests of the format.
#pragma once

#include <random>
#include <tuple>

#include "devices/net/firewall/compiled_rules.hpp"
#include "tests/unit/devices/net/fake_network.hpp"
#include "vmm/snapshot/machine_state.hpp"

namespace masu::snapshot::test {

template <class T>
void fill(T& value, std::mt19937_64& random) {
    for (auto& byte : std::as_writable_bytes(std::span(&value, 1)))
        byte = static_cast<std::byte>(random());
}

inline virtio::CoreState made_core(std::mt19937_64& random) {
    virtio::CoreState core;
    fill(core.registers, random);
    core.queues.resize(3);
    for (auto& queue : core.queues)
        fill(queue, random);
    core.device.resize(40, std::byte{0x5a});
    return core;
}

inline SavedVcpu made_vcpu(std::mt19937_64& random) {
    SavedVcpu vcpu;
    vcpu.cpuid.resize(4);
    for (auto& leaf : vcpu.cpuid)
        fill(leaf, random);
    auto& registers = vcpu.registers;
    fill(registers.regs, random);
    fill(registers.sregs, random);
    fill(registers.lapic, random);
    fill(registers.events, random);
    fill(registers.debugregs, random);
    registers.xcrs.nr_xcrs = 1;
    registers.has_pdptrs = true;
    registers.pdptrs[2] = random();
    registers.xsave.resize(4096, std::byte{3});
    registers.mp_state = 1;
    registers.tsc_khz = 2'000'000;
    registers.msrs = {{.index = 0x10, .reserved = 0, .data = random()},
                      {.index = 0x6e0, .reserved = 0, .data = random()}};
    return vcpu;
}

// Of a firewall that has seen a flow.
inline std::vector<std::byte> made_firewall() {
    auto firewall = std::move(*net::Firewall::create({.mac = net::fake::guest_mac}, {}));
    net::RuleSet rules;
    rules.rules = {
        {.id = "out", .direction = net::Direction::Egress, .peer = *net::parse_cidr("0.0.0.0/0")}};
    firewall->replace_rules(*net::compile(rules, {}));
    const auto frame = net::fake::udp_frame(4);
    std::ignore = firewall->judge(net::Direction::Egress,
                                  {frame, static_cast<std::uint32_t>(frame.size())}, 1);
    return firewall->save(1);
}

inline MachineState made_state(Transport transport) {
    std::mt19937_64 random(11);
    MachineState state;
    state.config = R"({"machine-config": {"vcpu_count": 2, "mem_size_mib": 128}})";
    state.transport = transport;
    state.memory_bytes = 128 << 20;
    state.wall_time = random();
    state.guest_clock = random();
    state.generation_id = 0xef000;
    state.panicked = true;
    state.vcpus = {made_vcpu(random), made_vcpu(random)};
    fill(state.platform.ioapic.entries, random);
    state.platform.ioapic.lines = 0x123456;
    fill(state.platform.rtc.memory, random);
    state.platform.rtc.offset_seconds = -7;
    state.platform.i8042.keyboard.count = 3;
    fill(state.platform.i8042.keyboard.bytes, random);
    state.platform.com1.fifo_count = 2;
    fill(state.platform.com1.fifo, random);
    state.platform.ged_pending = 2;
    state.platform.sleep_control = 4;
    state.interfaces = {{.id = "net0", .mac = {6, 0, 0, 0, 0, 1}, .firewall = made_firewall()},
                        {.id = "net1", .mac = {6, 0, 0, 0, 0, 2}, .firewall = std::nullopt}};
    state.metadata = R"({"latest":{"user-data":"x"}})";
    state.host = "a host/1.2.3";
    if (transport == Transport::Mmio) {
        state.devices.windows.emplace_back(
            "disk0", virtio::SavedMmioWindow{.core = made_core(random), .interrupt_status = 1});
        return state;
    }
    virtio::SavedPciFunction function;
    function.core = made_core(random);
    fill(function.config.bytes, random);
    function.msix.enabled = true;
    function.msix.table.resize(4);
    function.msix.pending = {5};
    function.config_vector = 3;
    function.queue_vectors = {0, 1, 2};
    function.number = 1;
    state.devices.functions.emplace_back("disk0", function);
    function.number = 2;
    state.devices.functions.emplace_back("entropy", function);
    state.devices.root.config_address = 0x8000'0810;
    return state;
}

}  // namespace masu::snapshot::test
