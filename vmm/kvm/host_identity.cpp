#include "vmm/kvm/host_identity.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include "base/atomic_file.hpp"

namespace masu::kvm {
namespace {

std::string read_boot_id() {
    const auto text = read_file("/proc/sys/kernel/random/boot_id", 64).value_or("");
    return text.substr(0, text.find('\n'));
}

}  // namespace

const std::string& boot_id() {
    static const std::string id = read_boot_id();
    return id;
}

std::string host_identity(const Kvm& kvm) {
    struct stat device{};
    if (boot_id().empty() || ::fstat(kvm.fd(), &device) < 0)
        return {};
    return fmt::format("{}/{}.{}.{}", boot_id(), device.st_ino, device.st_ctim.tv_sec,
                       device.st_ctim.tv_nsec);
}

}  // namespace masu::kvm
