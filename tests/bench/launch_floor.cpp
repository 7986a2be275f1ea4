// launch-floor STATE MEMORY LEVEL FD: the launch of a machine with nothing but the ioctls that any
// monitor must make: one slot, one vCPU, no device. A process of its own, as small as Masu's.
//
// Before it says on FD (a socket) that it is ready, "loaded" makes all but the vCPU's state,
// "forked-vm" the VM and its vCPU, and "forked" reads the state only; all then wait for a byte.
// "fresh" waits for nothing, and neither does "fresh-jailed", which gives up first what any jailed
// process does. Each tells when the guest first came out, waits for another byte, takes the VM
// apart, and ends.
#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string_view>

#include "base/clock.hpp"
#include "vmm/jail/capabilities.hpp"
#include "vmm/jail/seccomp.hpp"
#include "vmm/kvm/guest_ram.hpp"
#include "vmm/kvm/vcpu_state.hpp"
#include "vmm/kvm/vm.hpp"
#include "vmm/snapshot/machine_state.hpp"
#include "vmm/snapshot/memory_file.hpp"

namespace masu::bench {
namespace {

template <class T>
T require(Result<T> result) {
    if (!result) {
        std::fprintf(stderr, "launch-floor: %s\n", result.error().message.c_str());
        std::exit(1);
    }
    if constexpr (!std::is_void_v<T>)
        return std::move(*result);
}

void wait_for_byte(int socket) {
    char byte = 0;
    if (::read(socket, &byte, 1) != 1)
        std::exit(0);  // the benchmark has ended
}

// Files: the snapshot's and KVM. Capabilities: none. System calls: those of Masu's filter.
void enter_jail(const std::string& state) {
    require(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 ? Result<>() : fail("no_new_privs"));
    require(jail::keep_capabilities(0));
    constexpr std::uint64_t first_abi = (std::uint64_t{1} << 13) - 1;
    const landlock_ruleset_attr attributes{.handled_access_fs = first_abi};
    const Fd rules(static_cast<int>(
        ::syscall(SYS_landlock_create_ruleset, &attributes, sizeof attributes, 0U)));
    const auto allow = [&](const std::string& path, std::uint64_t access) {
        const Fd target(::open(path.c_str(), O_PATH | O_CLOEXEC));
        const landlock_path_beneath_attr rule{.allowed_access = access, .parent_fd = target.get()};
        return ::syscall(SYS_landlock_add_rule, rules.get(), LANDLOCK_RULE_PATH_BENEATH, &rule,
                         0U) == 0;
    };
    if (!allow("/dev/kvm", LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE) ||
        !allow(state.substr(0, state.rfind('/')),
               LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR) ||
        ::syscall(SYS_landlock_restrict_self, rules.get(), 0U) < 0)
        require<void>(fail_errno(errno, "no Landlock rules"));
    require(jail::enter_filter(jail::ThreadKind::Loop, jail::FilterMode::Enforce));
}

class Machine {
  public:
    explicit Machine(const snapshot::MachineState& state)
        : kvm_(require(kvm::Kvm::open())),
          ram_(require(kvm::GuestRam::reserve(state.memory_bytes))),
          vm_(require(kvm::Vm::create(kvm_))) {}
    void make_vcpu(const snapshot::MachineState& state) {
        vcpu_.emplace(require(kvm::Vcpu::create(kvm_, *vm_, 0)));
        require(vcpu_->set_cpuid(state.vcpus[0].cpuid));
    }
    void map(const std::string& memory) {
        require(ram_.put_file(require(snapshot::open_memory_file(memory, ram_.size()))));
        require(vm_->map_memory(ram_.memory()));
    }
    void run(const kvm::VcpuRegisters& registers) {
        require(kvm::restore_registers(kvm_, *vcpu_, registers, 0));
        std::ignore = vcpu_->run();
    }

  private:
    kvm::Kvm kvm_;
    kvm::GuestRam ram_;
    std::unique_ptr<kvm::Vm> vm_;
    std::optional<kvm::Vcpu> vcpu_;
};

int run(const std::string& state_path, const std::string& memory, std::string_view level,
        int socket) {
    const SystemClock clock;
    if (level == "fresh-jailed")
        enter_jail(state_path);
    const auto state = require(snapshot::load_state(state_path));
    std::optional<Machine> machine;
    // Slot first is quickest, where the vCPU need not be there before.
    if (level == "loaded") {
        machine.emplace(state).map(memory);
        machine->make_vcpu(state);
    } else if (level == "forked-vm") {
        machine.emplace(state).make_vcpu(state);
    }
    if (!level.starts_with("fresh")) {
        std::ignore = ::write(socket, "", 1);
        wait_for_byte(socket);
    }
    if (level == "forked-vm") {
        machine->map(memory);
    } else if (!machine) {
        machine.emplace(state).map(memory);
        machine->make_vcpu(state);
    }
    machine->run(state.vcpus[0].registers);
    const auto first_exit = clock.now();
    std::ignore = ::write(socket, &first_exit, sizeof first_exit);
    wait_for_byte(socket);
    return 0;
}

}  // namespace
}  // namespace masu::bench

int main(int count, char** arguments) {
    if (count != 5) {
        std::fprintf(
            stderr,
            "usage: launch-floor STATE MEMORY fresh|fresh-jailed|forked|forked-vm|loaded FD\n");
        return 2;
    }
    return masu::bench::run(arguments[1], arguments[2], arguments[3], std::atoi(arguments[4]));
}
