// launch-floor STATE MEMORY fresh|forked|loaded FD: the launch of a machine with nothing but the
// ioctls that any monitor must make: one slot, one vCPU, no device. A process of its own, as small
// as Masu's.
//
// "loaded" makes the VM before it says on FD (a socket) that it is ready, "forked" reads the state
// only; both then wait for a byte. "fresh" waits for nothing. Each tells when the guest first came
// out, waits for another byte, takes the VM apart, and ends.
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string_view>

#include "base/clock.hpp"
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

class Machine {
  public:
    Machine(const snapshot::MachineState& state, const std::string& memory)
        : kvm_(require(kvm::Kvm::open())),
          ram_(require(snapshot::map_memory(memory, state.memory_bytes))),
          vm_(require(kvm::Vm::create(kvm_))) {
        require(vm_->map_memory(ram_.memory()));
        vcpu_.emplace(require(kvm::Vcpu::create(kvm_, *vm_, 0)));
        require(vcpu_->set_cpuid(state.vcpus[0].cpuid));
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
    const auto state = require(snapshot::load_state(state_path));
    std::optional<Machine> machine;
    if (level == "loaded")
        machine.emplace(state, memory);
    if (level != "fresh") {
        std::ignore = ::write(socket, "", 1);
        wait_for_byte(socket);
    }
    if (!machine)
        machine.emplace(state, memory);
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
        std::fprintf(stderr, "usage: launch-floor STATE MEMORY fresh|forked|loaded FD\n");
        return 2;
    }
    return masu::bench::run(arguments[1], arguments[2], arguments[3], std::atoi(arguments[4]));
}
