#include "vmm/kvm/host_identity.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>

namespace masu::kvm {
namespace {

std::string read_boot_id() {
    const Fd file(::open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC));
    std::array<char, 64> text{};
    const auto length = file ? ::read(file.get(), text.data(), text.size()) : -1;
    std::string_view id(text.data(), length > 0 ? static_cast<std::size_t>(length) : 0);
    return std::string(id.substr(0, id.find('\n')));
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
