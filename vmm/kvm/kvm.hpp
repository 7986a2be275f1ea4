// The host's KVM: opening /dev/kvm, and what it can do.
#pragma once

#include "vmm/kvm/kvm_abi.hpp"

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace masu::kvm {

inline constexpr const char* default_device = "/dev/kvm";

// An open /dev/kvm. Immutable once opened: any thread.
class Kvm {
  public:
    // Opens the device and checks the API version and every capability Masu cannot do without.
    // Errors are a sentence with the remedy; os_errno tells a missing device (ENOENT, ENXIO,
    // ENODEV) from a forbidden one (EACCES, EPERM).
    [[nodiscard]] static Result<Kvm> open(const std::string& path = default_device);

    [[nodiscard]] int fd() const noexcept { return fd_.get(); }
    // KVM_CHECK_EXTENSION; 0 when the host has not heard of it.
    [[nodiscard]] int capability(long which) const noexcept;
    // Bytes to map of each vCPU's descriptor for its kvm_run.
    [[nodiscard]] std::size_t run_size() const noexcept { return run_size_; }
    // What KVM_GET_SUPPORTED_CPUID says: the most a guest may be shown on this host.
    [[nodiscard]] Result<std::vector<kvm_cpuid_entry2>> supported_cpuid() const;

  private:
    Kvm(Fd fd, std::size_t run_size) noexcept : fd_(std::move(fd)), run_size_(run_size) {}
    Fd fd_;
    std::size_t run_size_;
};

// The first CPU's part of /proc/cpuinfo, and whether its flags line names `flag`.
[[nodiscard]] std::string read_cpuinfo();
[[nodiscard]] bool has_cpu_flag(std::string_view cpuinfo, std::string_view flag);

// Why /dev/kvm is absent, judged from the flags line of /proc/cpuinfo: firmware switch, nested
// virtualization, or a module that is not loaded. A sentence without its full stop.
[[nodiscard]] std::string remedy_for_absent_kvm(std::string_view cpuinfo);

}  // namespace masu::kvm
