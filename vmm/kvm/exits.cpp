#include "vmm/kvm/exits.hpp"

#include <algorithm>

namespace masu::kvm {

namespace {

void handle_io(const kvm_run& run, std::span<std::byte> page, const ExitHandlers& handlers,
               ExitCounters& counters) {
    const std::size_t size = run.io.size;
    const std::size_t offset = run.io.data_offset;
    const bool is_in = run.io.direction == KVM_EXIT_IO_IN;
    (is_in ? counters.io_in : counters.io_out).add();
    if (size == 0 || size > 4 || offset > page.size())
        return;
    // String instructions arrive as several elements for one port.
    const auto count = std::min<std::size_t>(run.io.count, (page.size() - offset) / size);
    for (std::size_t i = 0; i < count; ++i) {
        const auto data = page.subspan(offset + i * size, size);
        if (is_in)
            handlers.ports.read(run.io.port, data);
        else
            handlers.ports.write(run.io.port, data);
    }
}

void handle_mmio(kvm_run& run, const ExitHandlers& handlers, ExitCounters& counters) {
    const auto size = std::min<std::size_t>(run.mmio.len, sizeof run.mmio.data);
    const auto data = std::as_writable_bytes(std::span(run.mmio.data)).first(size);
    if (run.mmio.is_write != 0) {
        counters.mmio_write.add();
        handlers.mmio.write(run.mmio.phys_addr, data);
    } else {
        counters.mmio_read.add();
        handlers.mmio.read(run.mmio.phys_addr, data);
    }
}

std::string bytes_in_hex(std::span<const std::uint8_t> bytes) {
    std::string text;
    for (const auto byte : bytes)
        text += fmt::format("{}{:02x}", text.empty() ? "" : " ", byte);
    return text;
}

StopEvent internal_error(const kvm_run& run) {
    if (run.internal.suberror != KVM_INTERNAL_ERROR_EMULATION)
        return {StopKind::Error,
                fmt::format("KVM stopped the VM with internal error {}", run.internal.suberror)};
    std::string instruction;
    const auto& failure = run.emulation_failure;
    if (failure.ndata >= 1 &&
        (failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0) {
        const auto size = std::min<std::size_t>(failure.insn_size, sizeof failure.insn_bytes);
        instruction = fmt::format(" ({})", bytes_in_hex(std::span(failure.insn_bytes).first(size)));
    }
    return {StopKind::Error,
            fmt::format("KVM could not emulate an instruction of the guest{} (internal error, "
                        "suberror {}); a software KVM that interprets guest kernels cannot run "
                        "them: 'masu doctor' tells what this host has and what to do",
                        instruction, run.internal.suberror)};
}

StopEvent system_event(const kvm_run& run) {
    switch (run.system_event.type) {
        case KVM_SYSTEM_EVENT_SHUTDOWN:
            return {StopKind::PowerOff, "the guest switched itself off"};
        case KVM_SYSTEM_EVENT_RESET:
            return {StopKind::Reset, "the guest asked for a reset"};
        case KVM_SYSTEM_EVENT_CRASH:
            return {StopKind::Panic, "the guest reported a crash"};
        default:
            return {StopKind::Error,
                    fmt::format("KVM reported system event {}, which Masu does not know",
                                run.system_event.type)};
    }
}

}  // namespace

ExitCounters::ExitCounters(Metrics& metrics)
    : io_in(metrics.counter("vcpu", "exit_io_in")),
      io_out(metrics.counter("vcpu", "exit_io_out")),
      mmio_read(metrics.counter("vcpu", "exit_mmio_read")),
      mmio_write(metrics.counter("vcpu", "exit_mmio_write")),
      hlt(metrics.counter("vcpu", "exit_hlt")),
      shutdown(metrics.counter("vcpu", "exit_shutdown")),
      system_event(metrics.counter("vcpu", "exit_system_event")),
      ioapic_eoi(metrics.counter("vcpu", "exit_ioapic_eoi")),
      interrupted(metrics.counter("vcpu", "exit_interrupted")),
      internal_error(metrics.counter("vcpu", "exit_internal_error")),
      fail_entry(metrics.counter("vcpu", "exit_fail_entry")),
      other(metrics.counter("vcpu", "exit_other")) {}

std::optional<StopEvent> handle_exit(kvm_run& run, std::span<std::byte> page,
                                     const ExitHandlers& handlers, ExitCounters& counters) {
    switch (run.exit_reason) {
        case KVM_EXIT_IO:
            handle_io(run, page, handlers, counters);
            return std::nullopt;
        case KVM_EXIT_MMIO:
            handle_mmio(run, handlers, counters);
            return std::nullopt;
        case KVM_EXIT_IOAPIC_EOI:
            counters.ioapic_eoi.add();
            if (handlers.ioapic_eoi)
                handlers.ioapic_eoi(run.eoi.vector);
            return std::nullopt;
        case KVM_EXIT_INTR:
            counters.interrupted.add();
            return std::nullopt;
        case KVM_EXIT_HLT:
            // With LAPICs in the kernel KVM waits there itself; seen only from a KVM that does not.
            counters.hlt.add();
            return std::nullopt;
        case KVM_EXIT_SHUTDOWN:
            counters.shutdown.add();
            return StopEvent{StopKind::TripleFault, "the guest's CPU shut down (triple fault)"};
        case KVM_EXIT_SYSTEM_EVENT:
            counters.system_event.add();
            return system_event(run);
        case KVM_EXIT_INTERNAL_ERROR:
            counters.internal_error.add();
            return internal_error(run);
        case KVM_EXIT_FAIL_ENTRY:
            counters.fail_entry.add();
            return StopEvent{
                StopKind::Error,
                fmt::format("the CPU refused to enter the guest (hardware reason {:#x} "
                            "on CPU {})",
                            run.fail_entry.hardware_entry_failure_reason, run.fail_entry.cpu)};
        default:
            counters.other.add();
            return StopEvent{StopKind::Error,
                             fmt::format("KVM left the guest for reason {}, which Masu does not "
                                         "handle",
                                         run.exit_reason)};
    }
}

}  // namespace masu::kvm
