// Gives the kernel the filters that compile_filters.cpp made.
#include "vmm/jail/seccomp.hpp"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <span>
#include <utility>

namespace masu::jail {
namespace {

#include "vmm/jail/compiled_filters.inc"

std::span<const sock_filter> program_for(ThreadKind kind, FilterMode mode) {
    const bool log = mode == FilterMode::Log;
    switch (kind) {
        case ThreadKind::Loop:
            return log ? std::span<const sock_filter>(log_loop) : enforce_loop;
        case ThreadKind::Vcpu:
            return log ? std::span<const sock_filter>(log_vcpu) : enforce_vcpu;
        case ThreadKind::Copy:
            return log ? std::span<const sock_filter>(log_copy) : enforce_copy;
        case ThreadKind::Populate:
            return log ? std::span<const sock_filter>(log_populate) : enforce_populate;
        case ThreadKind::Watch:
            break;
    }
    return log ? std::span<const sock_filter>(log_watch) : enforce_watch;
}

}  // namespace

Result<> enter_filter(ThreadKind kind, FilterMode mode) {
    if (mode == FilterMode::Off)
        return {};
    const auto instructions = program_for(kind, mode);
    const sock_fprog program{.len = static_cast<unsigned short>(instructions.size()),
                             .filter = const_cast<sock_filter*>(instructions.data())};
    if (::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0U, &program) < 0)
        return fail_errno(errno,
                          "the kernel takes no filter of system calls (it needs "
                          "CONFIG_SECCOMP_FILTER); --no-jail does without");
    return {};
}

}  // namespace masu::jail
