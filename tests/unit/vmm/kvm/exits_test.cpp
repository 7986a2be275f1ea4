#include "vmm/kvm/exits.hpp"

#include <doctest/doctest.h>

#include <array>

using namespace masu;
using namespace masu::kvm;

namespace {

// Answers every read with counting bytes, and keeps what is written.
class Recorder final : public BusDevice {
  public:
    void read(std::uint64_t offset, std::span<std::byte> data) override {
        accesses.push_back(fmt::format("r{}+{}", offset, data.size()));
        for (auto& byte : data)
            byte = std::byte{next++};
    }
    void write(std::uint64_t offset, std::span<const std::byte> data) override {
        accesses.push_back(fmt::format("w{}+{}", offset, data.size()));
        for (const auto byte : data)
            written.push_back(byte);
    }
    std::uint8_t next = 1;
    std::vector<std::string> accesses;
    std::vector<std::byte> written;
};

struct Fixture {
    Fixture() {
        REQUIRE(ports.insert(0x10, 4, device, "device"));
        REQUIRE(mmio.insert(0xd000'0000, 16, device, "device"));
        run.io.data_offset = sizeof(kvm_run);
    }
    std::optional<StopEvent> exit(std::uint32_t reason) {
        run.exit_reason = reason;
        return handle_exit(run, page, handlers, counters);
    }
    std::byte* data() { return page.data() + sizeof(kvm_run); }

    Bus ports, mmio;
    Recorder device;
    std::vector<std::uint8_t> ended;
    ExitHandlers handlers{ports, mmio, [this](std::uint8_t vector) { ended.push_back(vector); },
                          nullptr};
    Metrics metrics;
    ExitCounters counters{metrics};
    alignas(kvm_run) std::array<std::byte, sizeof(kvm_run) + 64> bytes{};
    std::span<std::byte> page{bytes};
    kvm_run& run = *reinterpret_cast<kvm_run*>(bytes.data());
};

void set_io(kvm_run& run, int direction, std::uint16_t port, std::uint8_t size,
            std::uint32_t count) {
    run.io.direction = static_cast<std::uint8_t>(direction);
    run.io.port = port;
    run.io.size = size;
    run.io.count = count;
}

}  // namespace

TEST_CASE_FIXTURE(Fixture, "a port read puts the device's answer where KVM looks for it") {
    set_io(run, KVM_EXIT_IO_IN, 0x12, 2, 1);
    CHECK_FALSE(exit(KVM_EXIT_IO));
    CHECK(device.accesses == std::vector<std::string>{"r2+2"});
    CHECK(data()[0] == std::byte{1});
    CHECK(data()[1] == std::byte{2});
    CHECK(counters.io_in.value() == 1);
}

TEST_CASE_FIXTURE(Fixture, "a string write is one access an element") {
    for (std::size_t i = 0; i < 6; ++i)
        data()[i] = static_cast<std::byte>(i);
    set_io(run, KVM_EXIT_IO_OUT, 0x10, 2, 3);
    CHECK_FALSE(exit(KVM_EXIT_IO));
    CHECK(device.accesses == std::vector<std::string>{"w0+2", "w0+2", "w0+2"});
    CHECK(device.written.size() == 6);
    CHECK(device.written[5] == std::byte{5});
    CHECK(counters.io_out.value() == 1);
}

TEST_CASE_FIXTURE(Fixture, "a count or offset beyond the page is cut, never overrun") {
    set_io(run, KVM_EXIT_IO_OUT, 0x10, 4, 0xffff'ffff);
    CHECK_FALSE(exit(KVM_EXIT_IO));
    CHECK(device.accesses.size() == 16);
    run.io.data_offset = 1 << 20;
    CHECK_FALSE(exit(KVM_EXIT_IO));
    CHECK(device.accesses.size() == 16);
}

TEST_CASE_FIXTURE(Fixture, "a port nobody answers reads as all ones") {
    set_io(run, KVM_EXIT_IO_IN, 0x99, 4, 1);
    CHECK_FALSE(exit(KVM_EXIT_IO));
    CHECK(data()[3] == std::byte{0xff});
    CHECK(device.accesses.empty());
}

TEST_CASE_FIXTURE(Fixture, "MMIO goes both ways with its width") {
    run.mmio.phys_addr = 0xd000'0008;
    run.mmio.len = 8;
    run.mmio.is_write = 0;
    CHECK_FALSE(exit(KVM_EXIT_MMIO));
    CHECK(run.mmio.data[7] == 8);
    run.mmio.is_write = 1;
    run.mmio.len = 1;
    CHECK_FALSE(exit(KVM_EXIT_MMIO));
    run.mmio.len = 200;  // KVM never says so; the buffer has 8
    CHECK_FALSE(exit(KVM_EXIT_MMIO));
    CHECK(device.accesses == std::vector<std::string>{"r8+8", "w8+1", "w8+8"});
    CHECK(counters.mmio_read.value() == 1);
    CHECK(counters.mmio_write.value() == 2);
}

TEST_CASE_FIXTURE(Fixture, "an end of interrupt reaches the IOAPIC") {
    run.eoi.vector = 0x51;
    CHECK_FALSE(exit(KVM_EXIT_IOAPIC_EOI));
    CHECK(ended == std::vector<std::uint8_t>{0x51});
}

TEST_CASE_FIXTURE(Fixture,
                  "a failed emulation names the instruction, the likely cause and a remedy") {
    run.internal.suberror = KVM_INTERNAL_ERROR_EMULATION;
    run.emulation_failure.ndata = 3;
    run.emulation_failure.flags = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
    run.emulation_failure.insn_size = 4;
    constexpr std::array<std::uint8_t, 4> pxor{0x66, 0x0f, 0xef, 0xc0};
    std::copy(pxor.begin(), pxor.end(), run.emulation_failure.insn_bytes);
    const auto stop = exit(KVM_EXIT_INTERNAL_ERROR);
    REQUIRE(stop);
    CHECK(stop->kind == StopKind::Error);
    CHECK(stop->reason.find("66 0f ef c0") != std::string::npos);
    CHECK(stop->reason.find("suberror 1") != std::string::npos);
    CHECK(stop->reason.find("masu doctor") != std::string::npos);

    run.internal.suberror = KVM_INTERNAL_ERROR_SIMUL_EX;
    CHECK(exit(KVM_EXIT_INTERNAL_ERROR)->reason.find("internal error 2") != std::string::npos);
}

TEST_CASE_FIXTURE(Fixture, "every way to stop has its kind") {
    CHECK(exit(KVM_EXIT_SHUTDOWN)->kind == StopKind::TripleFault);
    run.system_event.type = KVM_SYSTEM_EVENT_SHUTDOWN;
    CHECK(exit(KVM_EXIT_SYSTEM_EVENT)->kind == StopKind::PowerOff);
    run.system_event.type = KVM_SYSTEM_EVENT_RESET;
    CHECK(exit(KVM_EXIT_SYSTEM_EVENT)->kind == StopKind::Reset);
    run.system_event.type = KVM_SYSTEM_EVENT_CRASH;
    CHECK(exit(KVM_EXIT_SYSTEM_EVENT)->kind == StopKind::Panic);
    run.system_event.type = 99;
    CHECK(exit(KVM_EXIT_SYSTEM_EVENT)->kind == StopKind::Error);
    CHECK(exit(KVM_EXIT_FAIL_ENTRY)->kind == StopKind::Error);
    CHECK(exit(1000)->kind == StopKind::Error);
    CHECK_FALSE(exit(KVM_EXIT_INTR));
    CHECK_FALSE(exit(KVM_EXIT_HLT));
}
