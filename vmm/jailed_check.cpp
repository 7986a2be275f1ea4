#include "vmm/jailed_check.hpp"

#include <unistd.h>

namespace masu {

// By sysfs: the filter of system calls allows none of the sockets that interfaces are asked with.
Result<> check_jailed(const NetworkInterfaceConfig& interface) {
    if (interface.passt_fd || !interface.tap_fds.empty() ||
        ::access(fmt::format("/sys/class/net/{}", interface.host_dev_name).c_str(), F_OK) == 0)
        return {};
    return fail(
        "there is no TAP {}, and with --jail none is made: make it first, with `ip tuntap add {} "
        "mode tap user $USER` as root, or do without --jail",
        interface.host_dev_name, interface.host_dev_name);
}

Result<> check_jailed(const VsockConfig&) {
    return fail("a vsock cannot be combined with --jail yet: do without one of them");
}

Result<> check_jailed(const action::LoadSnapshot& action) {
    if (action.memory_handler.empty())
        return {};
    return fail(
        "a page fault handler (mem_backend of type Uffd) cannot be combined with --jail yet: load a "
        "plain memory file, or do without --jail");
}

}  // namespace masu
