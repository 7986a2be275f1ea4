#include "vmm/doctor_probe.hpp"

#include <unistd.h>

#include <array>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>

#include "base/bytes.hpp"
#include "vmm/kvm/guest_ram.hpp"
#include "vmm/kvm/kvm.hpp"
#include "vmm/kvm/vcpu.hpp"
#include "vmm/kvm/vm.hpp"

namespace masu {

namespace {

constexpr auto patience = std::chrono::seconds(5);
constexpr std::uint64_t probe_address = 0x10'0000;
constexpr std::uint16_t step_port = 0xe0;
constexpr std::uint8_t step_integer = 1;
constexpr std::uint8_t step_vector = 2;

// Every x86-64 CPU has SSE2, and every compiler uses it; KVM's instruction emulator does not know
// its arithmetic. A guest that gets past this runs on the CPU itself.
constexpr std::array<std::uint8_t, 44> probe_code{
    0xb0, step_integer,                          // mov   $1, %al
    0xe6, step_port,                             // out   %al, $step_port
    0x0f, 0x20,         0xe0,                    // mov   %cr4, %rax
    0x48, 0x0d,         0x00, 0x06, 0x00, 0x00,  // or    $0x600, %rax (OSFXSR, OSXMMEXCPT)
    0x0f, 0x22,         0xe0,                    // mov   %rax, %cr4
    0x66, 0x0f,         0xef, 0xc0,              // pxor  %xmm0, %xmm0
    0x66, 0x0f,         0x6e, 0xc8,              // movd  %eax, %xmm1
    0x66, 0x0f,         0xfe, 0xc1,              // paddd %xmm1, %xmm0
    0x66, 0x0f,         0x7e, 0xc3,              // movd  %xmm0, %ebx
    0x39, 0xc3,                                  // cmp   %eax, %ebx
    0x75, 0x04,                                  // jne   halt
    0xb0, step_vector,                           // mov   $2, %al
    0xe6, step_port,                             // out   %al, $step_port
    0xf4,                                        // halt: hlt
    0xeb, 0xfd,                                  // jmp   halt
};

// How far the probe guest came, and what ended it.
struct Outcome {
    std::uint8_t last_step = 0;
    bool timed_out = false;
    int run_error = 0;  // errno of KVM_RUN
    std::uint32_t exit_reason = 0;
    std::uint32_t suberror = 0;
};

// A VM with one vCPU at probe_code.
struct ProbeVm {
    kvm::GuestRam ram;
    std::unique_ptr<kvm::Vm> vm;
    kvm::Vcpu vcpu;
};

Result<ProbeVm> make_probe_vm(const kvm::Kvm& kvm) {
    auto ram = TRY(kvm::GuestRam::create(2 * MiB, HugePages::None));
    const auto memory = ram.memory();
    const boot::EntryState entry{boot::EntryMode::Long64, probe_address, 0};
    TRY(boot::write_entry_tables(memory, entry.mode));
    if (!memory.store(GuestAddress{probe_address}, probe_code))
        return fail("the probe does not fit into its memory");
    auto vm = TRY(kvm::Vm::create(kvm));
    TRY(vm->map_memory(memory));
    auto vcpu = TRY(kvm::Vcpu::create(kvm, *vm, 0));
    const auto supported = TRY(kvm.supported_cpuid());
    TRY(vcpu.set_cpuid(kvm::make_cpuid(supported, {}, 0)));
    TRY(vcpu.set_boot_defaults());
    TRY(vcpu.set_entry(entry));
    return ProbeVm{std::move(ram), std::move(vm), std::move(vcpu)};
}

// Runs until the last step, an exit that is none, or a kick after `give_up` was set.
Outcome run_probe(kvm::Vcpu& vcpu, const std::atomic<bool>& give_up) {
    Outcome outcome;
    while (!give_up) {
        const int error = vcpu.run();
        if (error == EINTR || error == EAGAIN)
            continue;
        auto& state = vcpu.state();
        if (error != 0) {
            outcome.run_error = error;
            return outcome;
        }
        if (state.exit_reason != KVM_EXIT_IO || state.io.port != step_port) {
            outcome.exit_reason = state.exit_reason;
            if (state.exit_reason == KVM_EXIT_INTERNAL_ERROR)
                outcome.suberror = state.internal.suberror;
            return outcome;
        }
        if (state.io.data_offset < vcpu.page().size())
            outcome.last_step = std::to_integer<std::uint8_t>(vcpu.page()[state.io.data_offset]);
        if (outcome.last_step == step_vector)
            return outcome;
    }
    outcome.timed_out = true;
    return outcome;
}

Outcome run_probe_in_time(kvm::Vcpu& vcpu) {
    kvm::install_kick_handler();
    std::atomic<bool> give_up{false};
    std::mutex mutex;
    std::condition_variable finished;
    std::optional<Outcome> outcome;
    std::jthread runner([&] {
        kvm::prepare_vcpu_thread(0);
        const auto result = run_probe(vcpu, give_up);
        const std::lock_guard lock(mutex);
        outcome = result;
        finished.notify_one();
    });
    {
        std::unique_lock lock(mutex);
        finished.wait_for(lock, patience, [&] { return outcome.has_value(); });
    }
    give_up = true;
    vcpu.kick(runner.native_handle());
    runner.join();
    return *outcome;
}

KvmProbe judge(const Outcome& outcome, KvmProbe probe) {
    const auto passed = [&](std::uint8_t step) { return outcome.last_step >= step; };
    probe.details.push_back(fmt::format("probe guest, integer instructions and a port write: {}",
                                        passed(step_integer) ? "ok" : "failed"));
    if (outcome.last_step == step_vector) {
        probe.details.emplace_back("probe guest, SSE2 arithmetic: ok");
        probe.kind = KvmKind::Hardware;
        probe.verdict = "hardware KVM: guests run on the CPU itself";
        return probe;
    }
    const bool not_emulated = outcome.exit_reason == KVM_EXIT_INTERNAL_ERROR &&
                              outcome.suberror == KVM_INTERNAL_ERROR_EMULATION;
    if (passed(step_integer) && not_emulated) {
        probe.details.emplace_back(
            "probe guest, SSE2 arithmetic: KVM could not emulate the instruction");
        probe.kind = KvmKind::Software;
        probe.verdict =
            "software KVM that interprets guest kernels: bare-metal payloads run, Linux does not";
        probe.remedy =
            "use a bare-metal machine or a VM with nested virtualization (vmx or svm in "
            "/proc/cpuinfo); here, Linux guests run only inside QEMU's emulation, as ./tools/demo "
            "does it";
        return probe;
    }
    probe.kind = KvmKind::Unusable;
    probe.remedy = "look for KVM's complaint in the kernel log (dmesg)";
    if (outcome.timed_out)
        probe.verdict = "KVM starts a guest that then makes no progress";
    else if (outcome.run_error != 0)
        probe.verdict = fmt::format("KVM cannot run a guest: {}", std::strerror(outcome.run_error));
    else
        probe.verdict = fmt::format("KVM left the probe guest for reason {}", outcome.exit_reason);
    return probe;
}

KvmProbe judge_open_failure(const std::string& device, const Error& error) {
    KvmProbe probe;
    switch (error.os_errno) {
        case ENOENT:
        case ENXIO:
        case ENODEV:
            probe.kind = KvmKind::Absent;
            probe.verdict = fmt::format("there is no {}", device);
            probe.remedy = kvm::remedy_for_absent_kvm(kvm::read_cpuinfo());
            break;
        case EACCES:
        case EPERM:
            probe.kind = KvmKind::NoPermission;
            probe.verdict = fmt::format("{} is there, but not for this user", device);
            probe.remedy =
                "add yourself to the group that owns it (usermod -aG kvm $USER, then log in again) "
                "or run as root";
            break;
        default:
            probe.kind = KvmKind::Unusable;
            probe.verdict = error.message;
            probe.remedy = "use a Linux kernel of 4.20 or later with KVM";
    }
    probe.details.push_back(error.message);
    return probe;
}

}  // namespace

KvmProbe probe_kvm(const std::string& device) {
    const auto kvm = kvm::Kvm::open(device);
    if (!kvm)
        return judge_open_failure(device, kvm.error());
    KvmProbe probe;
    probe.details.push_back(
        fmt::format("{}: opens, API version {}, all needed capabilities", device, KVM_API_VERSION));
    const auto cpuinfo = kvm::read_cpuinfo();
    probe.details.push_back(
        fmt::format("CPU flags: {}", kvm::has_cpu_flag(cpuinfo, "vmx")   ? "vmx (VT-x)"
                                     : kvm::has_cpu_flag(cpuinfo, "svm") ? "svm (AMD-V)"
                                                                         : "neither vmx nor svm"));
    auto machine = make_probe_vm(*kvm);
    if (!machine) {
        probe.kind = KvmKind::Unusable;
        probe.verdict = machine.error().message;
        probe.remedy = "look for KVM's complaint in the kernel log (dmesg)";
        return probe;
    }
    return judge(run_probe_in_time(machine->vcpu), std::move(probe));
}

std::string_view to_string(KvmKind kind) {
    switch (kind) {
        case KvmKind::Absent:
            return "absent";
        case KvmKind::NoPermission:
            return "no-permission";
        case KvmKind::Unusable:
            return "unusable";
        case KvmKind::Software:
            return "software";
        case KvmKind::Hardware:
            return "hardware";
    }
    return "unusable";
}

}  // namespace masu
