// Each filter, by what a process behind it can and cannot do.
#include <fcntl.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <net/if.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <thread>
#include <vector>

#include <doctest/doctest.h>
#include <liburing.h>

#include "base/atomic_file.hpp"
#include "base/event_loop.hpp"
#include "base/log.hpp"
#include "tests/unit/vmm/jail/child.hpp"
#include "vmm/kvm/kvm_abi.hpp"

using namespace masu;
using namespace masu::test;
using jail::FilterMode;
using jail::ThreadKind;

namespace {

constexpr std::array all_kinds{ThreadKind::Loop, ThreadKind::Vcpu, ThreadKind::Copy,
                               ThreadKind::Populate, ThreadKind::Watch};

struct Call {
    const char* name;
    std::function<void()> make;
};

void raw(long number, long a = 0, long b = 0, long c = 0, long d = 0) {
    ::syscall(number, a, b, c, d);
}

// What nothing in a monitor ever does, and whoever breaks in would like to.
std::vector<Call> forbidden_to_all() {
    return {
        {"execve", [] { raw(SYS_execve); }},
        {"execveat", [] { raw(SYS_execveat, -1); }},
        {"fork", [] { raw(SYS_fork); }},
        {"a process by clone", [] { raw(SYS_clone, SIGCHLD); }},
        {"a namespace by clone", [] { raw(SYS_clone, CLONE_NEWUSER | SIGCHLD); }},
        {"ptrace", [] { raw(SYS_ptrace, -1); }},
        {"process_vm_readv", [] { raw(SYS_process_vm_readv, -1); }},
        {"kill", [] { raw(SYS_kill, ::getpid(), 0); }},
        {"a signal to a thread", [] { raw(SYS_tgkill, ::getpid(), ::gettid(), SIGTERM); }},
        {"pidfd_getfd", [] { raw(SYS_pidfd_getfd, -1); }},
        {"mount", [] { raw(SYS_mount); }},
        {"pivot_root", [] { raw(SYS_pivot_root); }},
        {"chroot", [] { raw(SYS_chroot); }},
        {"unshare", [] { raw(SYS_unshare, 0); }},
        {"setns", [] { raw(SYS_setns, -1); }},
        {"bpf", [] { raw(SYS_bpf, -1); }},
        {"perf_event_open", [] { raw(SYS_perf_event_open); }},
        {"init_module", [] { raw(SYS_init_module); }},
        {"kexec_load", [] { raw(SYS_kexec_load); }},
        {"keyctl", [] { raw(SYS_keyctl, -1); }},
        {"userfaultfd", [] { raw(SYS_userfaultfd); }},
        {"open_by_handle_at", [] { raw(SYS_open_by_handle_at, -1); }},
        {"mknod", [] { raw(SYS_mknod); }},
        {"symlink", [] { raw(SYS_symlink); }},
        {"chmod", [] { raw(SYS_chmod); }},
        {"chown", [] { raw(SYS_chown); }},
        {"setuid", [] { raw(SYS_setuid, 0); }},
        {"personality", [] { raw(SYS_personality, 0xffffffff); }},
        {"prctl", [] { raw(SYS_prctl, PR_SET_DUMPABLE, 1); }},
        {"a handler for SIGSYS", [] { raw(SYS_rt_sigaction, SIGSYS); }},
        {"memory to execute", [] { raw(SYS_mmap, 0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE); }},
        {"memory made executable", [] { raw(SYS_mprotect, 0, 0, PROT_EXEC); }},
        {"an Internet socket", [] { raw(SYS_socket, AF_INET, SOCK_STREAM); }},
        {"a netlink socket", [] { raw(SYS_socket, AF_NETLINK, SOCK_RAW); }},
        {"a session of a userfaultfd", [] { raw(SYS_ioctl, -1, UFFDIO_API); }},
        {"TIOCSTI", [] { raw(SYS_ioctl, 0, TIOCSTI); }},
        {"an interface's ioctl", [] { raw(SYS_ioctl, 0, SIOCGIFADDR); }},
        {"another filter's user notifications",
         [] { raw(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER); }},
        {"the x32 table", [] { raw(0x40000000L | SYS_getpid); }},
    };
}

bool killed_by(ThreadKind kind, const std::function<void()>& call) {
    return in_filter(kind, FilterMode::Enforce, [&] {
               call();
               return 0;
           }).signal == SIGSYS;
}

// What the C library may do at any time, and every thread does.
int lead_a_life() {
    std::vector<std::vector<char>> blocks;
    for (std::size_t size = 16; size < 64 << 20; size *= 2)
        blocks.emplace_back(size, 'x');
    blocks.clear();
    std::mutex mutex;
    const std::lock_guard lock(mutex);
    timespec time{};
    if (::clock_gettime(CLOCK_MONOTONIC, &time) < 0)
        return 1;
    const timespec pause{.tv_sec = 0, .tv_nsec = 1};
    if (::nanosleep(&pause, nullptr) < 0)
        return 2;
    Log::to_stderr(LogLevel::Error).debug("nobody reads this");
    void* memory =
        ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED || ::madvise(memory, 4096, MADV_DONTNEED) < 0 ||
                   ::munmap(memory, 4096) < 0
               ? 3
               : 0;
}

int use_files() {
    std::string folder = "/tmp/masu-jail-XXXXXX";
    if (::mkdtemp(folder.data()) == nullptr)
        return 1;
    const auto path = folder + "/file";
    if (!write_file_atomically(path, "content") || *read_file(path, 100) != "content")
        return 2;
    char real[PATH_MAX];
    if (::realpath(path.c_str(), real) == nullptr || ::access(path.c_str(), R_OK) < 0)
        return 3;
    std::error_code error;
    std::filesystem::remove_all(folder, error);
    return error ? 4 : 0;
}

int use_the_loop() {
    auto loop = EventLoop::create();
    if (!loop)
        return 1;
    bool rang = false;
    auto timer = (*loop)->timer([&] { rang = true; });
    timer->arm(1);
    (*loop)->run_once(1000);
    int ends[2];
    const bool sockets = ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0 &&
                         ::send(ends[0], "x", 1, MSG_NOSIGNAL) == 1;
    bool ran = false;
    std::thread([&] { ran = lead_a_life() == 0; }).join();
    // Where the host has io_uring at all.
    io_uring ring{};
    if (::io_uring_queue_init(4, &ring, 0) == 0) {
        ::io_uring_submit(&ring);
        ::io_uring_queue_exit(&ring);
    }
    return rang && sockets && ran ? 0 : 2;
}

}  // namespace

TEST_CASE("no thread can do what an intruder wants") {
    for (const auto kind : all_kinds)
        for (const auto& call : forbidden_to_all()) {
            CAPTURE(static_cast<int>(kind));
            CAPTURE(call.name);
            CHECK(killed_by(kind, call.make));
        }
}

TEST_CASE("every thread has its memory, locks and clocks") {
    if (has_sanitizer())
        return;
    for (const auto kind : all_kinds) {
        CAPTURE(static_cast<int>(kind));
        const auto end = in_filter(kind, FilterMode::Enforce, lead_a_life);
        CHECK(end.signal == 0);
        CHECK(end.status == 0);
    }
}

TEST_CASE("the loop has files, sockets, rings and threads") {
    if (has_sanitizer())
        return;
    CHECK(in_filter(ThreadKind::Loop, FilterMode::Enforce, use_the_loop).status == 0);
    CHECK(in_filter(ThreadKind::Loop, FilterMode::Enforce, use_files).status == 0);
}

// Numbers that depend on the size of a struct with a trailing array, and one that does not.
TEST_CASE("the loop's requests to KVM have the kernel's numbers") {
    for (const unsigned long request :
         {KVM_GET_SUPPORTED_CPUID, KVM_GET_MSR_INDEX_LIST, KVM_SET_CPUID2, KVM_GET_MSRS,
          KVM_SET_MSRS, KVM_SET_GSI_ROUTING, KVM_GET_SREGS}) {
        CAPTURE(request);
        const auto end = in_filter(ThreadKind::Loop, FilterMode::Enforce, [request] {
            return ::ioctl(-1, request, nullptr) < 0 && errno == EBADF ? 0 : 1;
        });
        CHECK(end.signal == 0);
        CHECK(end.status == 0);
    }
}

TEST_CASE("a snapshot's writer has files, and neither sockets nor threads nor rings") {
    CHECK(in_filter(ThreadKind::Copy, FilterMode::Enforce, use_files).status == 0);
    CHECK(killed_by(ThreadKind::Copy, [] { ::socket(AF_UNIX, SOCK_STREAM, 0); }));
    CHECK(killed_by(ThreadKind::Copy, [] { raw(SYS_io_uring_setup, 1); }));
    CHECK(killed_by(ThreadKind::Copy, [] { std::thread([] {}).join(); }));
}

TEST_CASE("who watches over served memory has files, to tell of its end, and no more") {
    CHECK(in_filter(ThreadKind::Watch, FilterMode::Enforce, use_files).status == 0);
    CHECK(killed_by(ThreadKind::Watch, [] { ::socket(AF_UNIX, SOCK_STREAM, 0); }));
    CHECK(killed_by(ThreadKind::Watch, [] { std::thread([] {}).join(); }));
    CHECK(killed_by(ThreadKind::Watch, [] { raw(SYS_ioctl, -1, UFFDIO_REGISTER); }));
}

TEST_CASE("a vCPU's thread opens nothing and makes nothing") {
    const std::vector<Call> calls{
        {"socket", [] { ::socket(AF_UNIX, SOCK_STREAM, 0); }},
        {"connect", [] { ::connect(-1, nullptr, 0); }},
        {"unlink", [] { ::unlink("/nowhere"); }},
        {"rename", [] { std::ignore = ::rename("/nowhere", "/nowhere-else"); }},
        {"io_uring_setup", [] { raw(SYS_io_uring_setup, 1); }},
        {"a thread", [] { std::thread([] {}).join(); }},
        {"memfd_create", [] { ::memfd_create("x", MFD_CLOEXEC); }},
        {"another filter", [] { raw(SYS_seccomp, SECCOMP_SET_MODE_FILTER); }}};
    for (const auto kind : {ThreadKind::Vcpu, ThreadKind::Populate})
        for (const auto& call : calls) {
            CAPTURE(static_cast<int>(kind));
            CAPTURE(call.name);
            CHECK(killed_by(kind, call.make));
        }
}

TEST_CASE("a vCPU's thread opens no file, and does not die of trying, as malloc() does") {
    for (const auto kind : {ThreadKind::Vcpu, ThreadKind::Populate})
        CHECK(in_filter(kind, FilterMode::Enforce, [] {
                  return ::open("/dev/null", O_RDONLY | O_CLOEXEC) < 0 && errno == EACCES ? 0 : 1;
              }).status == 0);
}

TEST_CASE("limits are asked for, and not changed") {
    const auto end = in_filter(ThreadKind::Loop, FilterMode::Enforce, [] {
        rlimit limit{};
        if (::getrlimit(RLIMIT_NOFILE, &limit) < 0)
            return 1;
        return ::setrlimit(RLIMIT_NOFILE, &limit) < 0 && errno == EPERM ? 0 : 2;
    });
    CHECK(end.status == 0);
}

TEST_CASE("a thread narrows itself, and leaves the others as they are") {
    if (has_sanitizer())
        return;
    const auto with_thread = [](bool makes_socket) {
        return in_filter(ThreadKind::Loop, FilterMode::Enforce, [&] {
            bool entered = false;
            std::thread([&] {
                entered =
                    jail::enter_filter(ThreadKind::Vcpu, FilterMode::Enforce) && lead_a_life() == 0;
                if (makes_socket)
                    ::socket(AF_UNIX, SOCK_STREAM, 0);
            }).join();
            return entered && ::socket(AF_UNIX, SOCK_STREAM, 0) >= 0 ? 0 : 1;
        });
    };
    CHECK(with_thread(false).status == 0);
    CHECK(with_thread(true).signal == SIGSYS);  // the whole process, not the thread alone
}

TEST_CASE("in the log's mode a call that is not allowed goes on") {
    const auto end = in_filter(ThreadKind::Vcpu, FilterMode::Log,
                               [] { return ::socket(AF_UNIX, SOCK_STREAM, 0) >= 0 ? 0 : 1; });
    CHECK(end.signal == 0);
    CHECK(end.status == 0);
}

TEST_CASE("clone3 is not there, so that threads are made where their flags can be seen") {
    const auto end = in_filter(ThreadKind::Loop, FilterMode::Enforce, [] {
        return ::syscall(SYS_clone3, nullptr, 0) < 0 && errno == ENOSYS ? 0 : 1;
    });
    CHECK(end.status == 0);
}
