// capget(2), capset(2), prctl(2).
#include "vmm/jail/capabilities.hpp"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace masu::jail {
namespace {

struct Sets {
    Capabilities effective = 0;
    Capabilities permitted = 0;
};

__user_cap_header_struct header() noexcept {
    return {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
}

Result<Sets> read_sets() {
    auto head = header();
    std::array<__user_cap_data_struct, 2> data{};
    if (::syscall(SYS_capget, &head, data.data()) < 0)
        return fail_errno(errno, "the kernel does not tell this process's capabilities");
    return Sets{.effective = Capabilities{data[1].effective} << 32 | data[0].effective,
                .permitted = Capabilities{data[1].permitted} << 32 | data[0].permitted};
}

Result<> write_sets(const Sets& sets) {
    auto head = header();
    std::array<__user_cap_data_struct, 2> data{};
    for (unsigned half = 0; half < data.size(); ++half) {
        data[half].effective = static_cast<std::uint32_t>(sets.effective >> (32 * half));
        data[half].permitted = static_cast<std::uint32_t>(sets.permitted >> (32 * half));
    }
    if (::syscall(SYS_capset, &head, data.data()) < 0)
        return fail_errno(errno, "capabilities cannot be given up");
    return {};
}

bool within_reach(const ReopenedFile& file) {
    return ::faccessat(AT_FDCWD, file.path.c_str(), file.writable ? R_OK | W_OK : R_OK,
                       AT_EACCESS) == 0 ||
           errno != EACCES;
}

}  // namespace

Result<Capabilities> permitted_capabilities() {
    return TRY(read_sets()).permitted;
}

// The ambient set follows the permitted and inheritable ones by itself.
Result<> keep_capabilities(Capabilities kept) {
    const auto left = TRY(read_sets()).permitted & kept;
    return write_sets({.effective = left, .permitted = left});
}

void end_powers_of_root() noexcept {
    ::prctl(PR_SET_SECUREBITS,
            SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE |
                SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED,
            0, 0, 0);
}

Capabilities set_up_capabilities() noexcept {
    return capability(CAP_NET_ADMIN) | capability(CAP_DAC_OVERRIDE);
}

Result<> give_up_set_up_capabilities(std::span<const ReopenedFile> files, const Log& log) {
    constexpr auto override_modes = capability(CAP_DAC_OVERRIDE);
    const auto permitted = TRY(permitted_capabilities());
    if (permitted == 0)
        return {};
    TRY(write_sets({.effective = 0, .permitted = permitted & override_modes}));
    const auto out_of_reach = std::ranges::find_if_not(files, within_reach);
    if (out_of_reach == files.end() || (permitted & override_modes) == 0)
        return keep_capabilities(0);
    log.warn(
        "CAP_DAC_OVERRIDE is kept, as a reboot opens a file anew that belongs to another user; "
        "give root's VMs files of root's to do without",
        {kv("path", out_of_reach->path)});
    return keep_capabilities(override_modes);
}

}  // namespace masu::jail
