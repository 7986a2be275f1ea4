#include "tests/kvm/payload_machine.hpp"

#include <stdexcept>

#include "base/bytes.hpp"
#include "vmm/kvm/cpuid.hpp"
#include "vmm/layout.hpp"

namespace masu::test {

namespace {

constexpr auto patience = std::chrono::seconds(10);
constexpr std::uint16_t report_port = 0xe0;
constexpr std::uint64_t load_address = 0x10'0000;

template <class T>
T require(Result<T> result) {
    if (!result)
        throw std::runtime_error(result.error().message);
    if constexpr (!std::is_void_v<T>)
        return std::move(*result);
}

}  // namespace

void ScratchDevice::read(std::uint64_t offset, std::span<std::byte> data) {
    const std::lock_guard lock(mutex_);
    std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(offset), data.size(), data.begin());
}

void ScratchDevice::write(std::uint64_t offset, std::span<const std::byte> data) {
    {
        const std::lock_guard lock(mutex_);
        std::copy(data.begin(), data.end(), bytes_.begin() + static_cast<std::ptrdiff_t>(offset));
        for (const auto byte : data)
            written_ += static_cast<char>(byte);
    }
    if (on_write)
        on_write(static_cast<std::uint8_t>(data[0]));
}

std::string ScratchDevice::written() const {
    const std::lock_guard lock(mutex_);
    return written_;
}

// The report port (32 bits at offset 0) and the done port (offset 4).
struct PayloadMachine::Reports final : BusDevice {
    void read(std::uint64_t /*offset*/, std::span<std::byte> data) override {
        std::fill(data.begin(), data.end(), std::byte{0xff});
    }
    void write(std::uint64_t offset, std::span<const std::byte> data) override {
        const std::lock_guard lock(mutex);
        if (offset == 0 && data.size() == 4)
            values.push_back(load_unaligned<std::uint32_t>(data.data()));
        else if (offset == 4)
            done = true;
        changed.notify_all();
    }
    void stopped(StopEvent event) {
        const std::lock_guard lock(mutex);
        stop = std::move(event);
        changed.notify_all();
    }
    [[nodiscard]] bool over() const { return done || stop.has_value(); }

    std::mutex mutex;
    std::condition_variable changed;
    std::vector<std::uint32_t> values;
    bool done = false;
    std::optional<StopEvent> stop;
};

PayloadMachine::PayloadMachine(std::span<const char> payload, unsigned vcpu_count)
    : reports_(std::make_unique<Reports>()),
      ram_(require(kvm::GuestRam::create(4 * MiB, HugePages::None))),
      memory(ram_.memory()),
      handlers_{ports, mmio, [this](std::uint8_t vector) { ioapic->end_of_interrupt(vector); },
                [this](StopEvent event) { reports_->stopped(std::move(event)); }} {
    const auto kvm = require(kvm::Kvm::open());
    vm = require(kvm::Vm::create(kvm));
    require(vm->map_memory(memory));
    routes = std::make_unique<kvm::IrqRoutes>(*vm);
    ioapic = std::make_unique<legacy::Ioapic>(routes->ioapic());
    require(ports.insert(report_port, 8, *reports_, "reports"));
    require(ports.insert(0xe8, 8, port_device, "scratch ports"));
    require(mmio.insert(0xd000'0000, 16, mmio_device, "scratch MMIO"));
    require(mmio.insert(layout::ioapic, legacy::ioapic_mmio_size, *ioapic, "ioapic"));

    const boot::EntryState entry{boot::EntryMode::Long64, load_address, 0};
    require(boot::write_entry_tables(memory, entry.mode));
    if (!memory.write(GuestAddress{load_address}, std::as_bytes(payload)))
        throw std::runtime_error("payload too big");
    const auto supported = require(kvm.supported_cpuid());
    std::vector<kvm::Vcpu> made;
    for (unsigned i = 0; i < vcpu_count; ++i) {
        auto vcpu = require(kvm::Vcpu::create(kvm, *vm, i));
        require(vcpu.set_cpuid(
            kvm::make_cpuid(supported, {.topology = {.vcpu_count = vcpu_count, .smt = false}}, i)));
        require(vcpu.set_boot_defaults());
        made.push_back(std::move(vcpu));
    }
    require(made.front().set_entry(entry));
    vcpus = require(kvm::VcpuSet::create(std::move(made), metrics, boot_timer_));
    vcpus->handle_exits(handlers_);
}

PayloadMachine::~PayloadMachine() = default;

void PayloadMachine::start() {
    vcpus->resume();
}

std::vector<std::uint32_t> PayloadMachine::wait_for_reports(std::size_t count) {
    std::unique_lock lock(reports_->mutex);
    reports_->changed.wait_for(
        lock, patience, [&] { return reports_->values.size() >= count || reports_->over(); });
    return reports_->values;
}

bool PayloadMachine::wait_until_done() {
    std::unique_lock lock(reports_->mutex);
    reports_->changed.wait_for(lock, patience, [&] { return reports_->over(); });
    return reports_->done;
}

std::optional<StopEvent> PayloadMachine::wait_for_stop() {
    std::unique_lock lock(reports_->mutex);
    reports_->changed.wait_for(lock, patience, [&] { return reports_->stop.has_value(); });
    return reports_->stop;
}

std::uint64_t PayloadMachine::peek(std::uint64_t address) const {
    return memory.load<std::uint64_t>(GuestAddress{address}).value_or(0);
}

void PayloadMachine::poke32(std::uint64_t address, std::uint32_t value) {
    if (!memory.store(GuestAddress{address}, value))
        throw std::runtime_error("poke outside of memory");
}

std::uint64_t PayloadMachine::count(const char* exit) {
    return metrics.counter("vcpu", exit).value();
}

}  // namespace masu::test
