// A machine as a snapshot holds it, memory and disks apart: values, and their way into the sections
// of a state file and back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "vmm/kvm/cpuid.hpp"
#include "vmm/kvm/vcpu_state.hpp"
#include "vmm/net/saved_network.hpp"
#include "vmm/platform.hpp"
#include "vmm/snapshot/page_list.hpp"
#include "vmm/virtio_devices.hpp"

namespace masu::snapshot {

struct SavedVcpu {
    kvm::CpuidLeaves cpuid;
    kvm::VcpuRegisters registers;
};

struct MachineState {
    std::string config;  // JSON, as in a config file: what the machine is made of
    Transport transport = Transport::Pci;
    std::uint64_t memory_bytes = 0;
    std::uint64_t wall_time = 0;      // nanoseconds since 1970 when the guest was stopped
    std::uint64_t guest_clock = 0;    // kvmclock then, nanoseconds
    std::uint64_t generation_id = 0;  // guest address of the VM generation ID; 0: it has none
    bool panicked = false;            // the guest's kernel said so
    std::vector<SavedVcpu> vcpus;
    SavedPlatform platform;
    SavedVirtioDevices devices;
    // Since format 1.1:
    std::vector<SavedInterface> interfaces;
    std::string metadata;  // JSON that PUT /mmds had set; empty: none
    // Since format 1.3:
    std::string host;  // kvm::host_identity() where it was saved; empty: not known
};

// What the guest of each vCPU knows its CPU by.
[[nodiscard]] std::vector<kvm::CpuidLeaves> shown_cpuid(const MachineState& state);

[[nodiscard]] std::vector<std::byte> encode(const MachineState& state);

// Everything that can be judged without KVM is checked here: structure, checksums, bounds, and that
// the parts belong together. `file` may be anyone's.
[[nodiscard]] Result<MachineState> decode(std::span<const std::byte> file);

// read_file() and decode(), with the path in the error; and which snapshot it is.
[[nodiscard]] Result<MachineState> load_state(const std::string& path, SnapshotId* id = nullptr);

}  // namespace masu::snapshot
