// The tables of allowed calls. A call that is missing here kills the monitor: --seccomp log finds
// it.
#include "vmm/jail/filter_rules.hpp"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <linux/if_tun.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <termios.h>

#include <cerrno>
#include <initializer_list>

#include "vmm/kvm/kvm_abi.hpp"

namespace masu::jail {
namespace {

// glibc's SIGRTMIN, which kicks vCPU threads; the two below it are its own. The first thread that
// is made installs a handler for the upper one.
constexpr std::uint64_t kick_signal = 34;
constexpr std::uint64_t glibc_signal = 33;
// Those of pthread_create() in glibc, exactly.
constexpr std::uint64_t thread_flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND |
                                       CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS |
                                       CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;

scmp_arg_cmp is(unsigned argument, std::uint64_t value) {
    return {.arg = argument, .op = SCMP_CMP_EQ, .datum_a = value, .datum_b = 0};
}

scmp_arg_cmp is_not(unsigned argument, std::uint64_t value) {
    return {.arg = argument, .op = SCMP_CMP_NE, .datum_a = value, .datum_b = 0};
}

scmp_arg_cmp has_none_of(unsigned argument, std::uint64_t bits) {
    return {.arg = argument, .op = SCMP_CMP_MASKED_EQ, .datum_a = bits, .datum_b = 0};
}

class Rules {
  public:
    void allow(std::initializer_list<int> calls) {
        for (const int call : calls)
            rules_.push_back({.call = call});
    }
    void allow_if(int call, std::vector<scmp_arg_cmp> conditions) {
        rules_.push_back({.call = call, .conditions = std::move(conditions)});
    }
    // Where one argument is one of these.
    void allow_values(int call, unsigned argument, std::initializer_list<std::uint64_t> values) {
        for (const auto value : values)
            allow_if(call, {is(argument, value)});
    }
    void refuse(int call, int error, std::vector<scmp_arg_cmp> conditions = {}) {
        rules_.push_back({.call = call, .conditions = std::move(conditions), .refusal = error});
    }
    void ioctls(std::initializer_list<std::uint64_t> requests) {
        allow_values(SYS_ioctl, 1, requests);
    }
    [[nodiscard]] std::vector<Rule> take() { return std::move(rules_); }

  private:
    std::vector<Rule> rules_;
};

// Memory, locks, time and the end of a thread: what the C library does for any of them.
void allow_common(Rules& rules) {
    rules.allow({SYS_futex,           SYS_brk,           SYS_munmap,
                 SYS_mremap,          SYS_madvise,       SYS_sched_yield,
                 SYS_sigaltstack,     SYS_clock_gettime, SYS_clock_nanosleep,
                 SYS_nanosleep,       SYS_gettimeofday,  SYS_time,
                 SYS_getpid,          SYS_gettid,        SYS_getrandom,
                 SYS_restart_syscall, SYS_rt_sigreturn,  SYS_rt_sigprocmask,
                 SYS_set_robust_list, SYS_rseq,          SYS_exit,
                 SYS_exit_group});
    // No new code: nothing is ever mapped to be executed.
    rules.allow_if(SYS_mmap, {has_none_of(2, PROT_EXEC)});
    rules.allow_if(SYS_mprotect, {has_none_of(2, PROT_EXEC)});
    // A kick, and the end of this process by abort().
    rules.allow_values(SYS_tgkill, 2, {kick_signal, SIGABRT});
    rules.allow_values(SYS_rt_sigaction, 0, {SIGABRT});
    rules.allow_if(SYS_prctl, {is(0, PR_SET_NAME)});
    // eventfds, the log
    rules.allow({SYS_read, SYS_write, SYS_writev, SYS_close});
}

// Requests in flight are drained by whoever resets a device, on either kind of thread; so are the
// synchronous engine's made there.
void allow_disk_io(Rules& rules) {
    rules.allow({SYS_io_uring_enter, SYS_pread64, SYS_pwrite64, SYS_preadv, SYS_pwritev,
                 SYS_preadv2, SYS_pwritev2, SYS_fdatasync, SYS_fsync, SYS_fallocate});
    rules.ioctls({BLKDISCARD});
}

// What a network backend does while its device is set up, reset or told to go on.
void allow_backend_io(Rules& rules) {
    rules.allow({SYS_readv, SYS_sendto, SYS_sendmsg, SYS_recvfrom, SYS_recvmsg, SYS_shutdown,
                 SYS_epoll_ctl, SYS_timerfd_settime});
    rules.ioctls({TUNSETOFFLOAD, TUNSETQUEUE});
}

// The C library's malloc() looks for /proc/sys/vm/overcommit_memory before it gives memory back,
// and goes on without it. That must not be how a guest ends the monitor.
void open_nothing(Rules& rules) {
    rules.refuse(SYS_open, EACCES);
    rules.refuse(SYS_openat, EACCES);
}

void allow_vcpu(Rules& rules) {
    rules.ioctls({KVM_RUN, KVM_SIGNAL_MSI, KVM_SET_GSI_ROUTING, KVM_KVMCLOCK_CTRL, KVM_IRQFD,
                  KVM_IOEVENTFD});
    rules.allow({SYS_eventfd2});
    allow_common(rules);
    open_nothing(rules);
    allow_disk_io(rules);
    allow_backend_io(rules);
}

void allow_files(Rules& rules) {
    rules.allow({SYS_open,           SYS_openat,    SYS_lseek,      SYS_stat,
                 SYS_fstat,          SYS_lstat,     SYS_newfstatat, SYS_statx,
                 SYS_statfs,         SYS_fstatfs,   SYS_access,     SYS_faccessat,
                 SYS_faccessat2,     SYS_readlink,  SYS_readlinkat, SYS_getcwd,
                 SYS_getdents64,     SYS_ftruncate, SYS_rename,     SYS_renameat,
                 SYS_renameat2,      SYS_link,      SYS_linkat,     SYS_unlink,
                 SYS_unlinkat,       SYS_mkdir,     SYS_mkdirat,    SYS_rmdir,
                 SYS_flock,          SYS_fadvise64, SYS_fchmod,     SYS_copy_file_range,
                 SYS_sync_file_range});
    rules.allow_values(SYS_fcntl, 1,
                       {F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC, F_OFD_SETLK,
                        F_OFD_GETLK, F_SETLK, F_GETLK, F_ADD_SEALS, F_GET_SEALS});
    rules.ioctls({FICLONE, BLKGETSIZE64, BLKSSZGET, TCGETS});
}

void allow_kvm_set_up(Rules& rules) {
    rules.ioctls({KVM_GET_API_VERSION, KVM_CHECK_EXTENSION, KVM_GET_VCPU_MMAP_SIZE,
                  KVM_GET_SUPPORTED_CPUID, KVM_GET_MSR_INDEX_LIST, KVM_CREATE_VM, KVM_ENABLE_CAP,
                  KVM_SET_TSS_ADDR, KVM_SET_IDENTITY_MAP_ADDR, KVM_SET_USER_MEMORY_REGION,
                  KVM_CREATE_VCPU, KVM_SET_CPUID2, KVM_IRQFD, KVM_IOEVENTFD, KVM_SET_GSI_ROUTING,
                  KVM_SIGNAL_MSI, KVM_RUN});
}

void allow_kvm_state(Rules& rules) {
    rules.ioctls({KVM_GET_CLOCK,       KVM_SET_CLOCK,     KVM_GET_REGS,      KVM_SET_REGS,
                  KVM_GET_SREGS,       KVM_SET_SREGS,     KVM_GET_SREGS2,    KVM_SET_SREGS2,
                  KVM_GET_MSRS,        KVM_SET_MSRS,      KVM_GET_LAPIC,     KVM_SET_LAPIC,
                  KVM_GET_XSAVE,       KVM_GET_XSAVE2,    KVM_SET_XSAVE,     KVM_GET_XCRS,
                  KVM_SET_XCRS,        KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, KVM_GET_VCPU_EVENTS,
                  KVM_SET_VCPU_EVENTS, KVM_GET_MP_STATE,  KVM_SET_MP_STATE,  KVM_GET_TSC_KHZ,
                  KVM_SET_TSC_KHZ,     KVM_KVMCLOCK_CTRL, KVM_GET_DIRTY_LOG, KVM_CLEAR_DIRTY_LOG});
}

void allow_sockets(Rules& rules) {
    rules.allow_if(SYS_socket, {is(0, AF_UNIX)});
    rules.allow_if(SYS_socketpair, {is(0, AF_UNIX)});
    rules.allow_if(SYS_setsockopt, {is(1, SOL_SOCKET)});
    rules.allow({SYS_bind, SYS_listen, SYS_accept, SYS_accept4, SYS_connect, SYS_getsockopt,
                 SYS_getsockname, SYS_getpeername, SYS_sendmmsg, SYS_recvmmsg});
}

// Threads may be made; whatever clone3() is asked for lies in memory, where no filter looks, and
// the C library does without it.
void allow_threads(Rules& rules) {
    rules.allow_if(SYS_clone, {is(0, thread_flags)});
    rules.refuse(SYS_clone3, ENOSYS);
    rules.allow_values(SYS_rt_sigaction, 0, {kick_signal, glibc_signal});
    // Limits are there to ask for; liburing would raise one when it runs out of descriptors.
    rules.allow({SYS_getrlimit});
    rules.allow_if(SYS_prlimit64, {is(2, 0)});
    rules.refuse(SYS_prlimit64, EPERM, {is_not(2, 0)});
    rules.refuse(SYS_setrlimit, EPERM);
    // A thread narrows itself further, and gives capabilities up.
    rules.allow_if(SYS_seccomp, {is(0, SECCOMP_SET_MODE_FILTER), is(1, 0)});
    rules.allow({SYS_capset, SYS_capget});
    rules.allow({SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_uname, SYS_sysinfo});
}

void allow_loop(Rules& rules) {
    allow_common(rules);
    allow_disk_io(rules);
    allow_backend_io(rules);
    allow_files(rules);
    allow_kvm_set_up(rules);
    allow_kvm_state(rules);
    allow_sockets(rules);
    allow_threads(rules);
    rules.allow({SYS_epoll_wait, SYS_epoll_pwait, SYS_epoll_create1, SYS_poll, SYS_ppoll,
                 SYS_eventfd2, SYS_timerfd_create, SYS_timerfd_gettime, SYS_signalfd4, SYS_pipe2,
                 SYS_memfd_create, SYS_io_uring_setup, SYS_io_uring_register, SYS_mincore});
    rules.ioctls({TUNSETIFF, TUNGETIFF, TUNGETFEATURES, TUNSETVNETHDRSZ, FIONREAD});
    // Of a userfaultfd that was made before the jail: no thread can make one.
    rules.ioctls({UFFDIO_REGISTER});
}

void allow_copy(Rules& rules) {
    allow_common(rules);
    allow_files(rules);
    rules.allow({SYS_pread64, SYS_pwrite64, SYS_preadv, SYS_pwritev, SYS_fdatasync, SYS_fsync,
                 SYS_fallocate});
    rules.ioctls({KVM_GET_DIRTY_LOG, KVM_CLEAR_DIRTY_LOG});
}

// Its last act is the exit file.
void allow_watch(Rules& rules) {
    allow_common(rules);
    allow_files(rules);
    rules.allow({SYS_poll, SYS_ppoll, SYS_recvfrom, SYS_pread64, SYS_mincore, SYS_fsync});
    rules.ioctls({UFFDIO_UNREGISTER});
}

}  // namespace

std::vector<Rule> rules_for(ThreadKind kind) {
    Rules rules;
    switch (kind) {
        case ThreadKind::Loop:
            allow_loop(rules);
            break;
        case ThreadKind::Vcpu:
            allow_vcpu(rules);
            break;
        case ThreadKind::Copy:
            allow_copy(rules);
            break;
        case ThreadKind::Populate:
            allow_common(rules);
            open_nothing(rules);
            break;
        case ThreadKind::Watch:
            allow_watch(rules);
            break;
    }
    return rules.take();
}

}  // namespace masu::jail
