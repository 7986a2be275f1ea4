// The jail as a whole, by what /proc says of a process in it.
#include <linux/capability.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "base/atomic_file.hpp"
#include "tests/unit/vmm/jail/child.hpp"
#include "vmm/jail/capabilities.hpp"
#include "vmm/jail/jail.hpp"

using namespace masu;
using namespace masu::test;

namespace {

bool status_has(std::string_view line) {
    const auto status = read_file("/proc/self/status", 65536);
    return status && status->contains(line);
}

}  // namespace

TEST_CASE("a jailed process is one by the kernel's own account") {
    const auto end = in_child([] {
        const auto jail = jail::enter({});
        if (!jail || jail->walls.empty())
            return 1;
        if (!jail::give_up_set_up_capabilities({}, Log()))
            return 2;
        if (!status_has("\nSeccomp:\t2\n") || !status_has("\nNoNewPrivs:\t1\n") ||
            !status_has("\nCapEff:\t0000000000000000\n") ||
            !status_has("\nCapPrm:\t0000000000000000\n"))
            return 3;
        rlimit core{};
        rlimit files{};
        return ::getrlimit(RLIMIT_CORE, &core) == 0 && core.rlim_max <= 1 &&
                       ::getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur == files.rlim_max
                   ? 0
                   : 4;
    });
    CHECK(end.signal == 0);
    CHECK(end.status == 0);
}

TEST_CASE("a program that root executes gets no capability for it any more") {
    const auto permitted = jail::permitted_capabilities();
    if (!permitted || (*permitted & jail::capability(CAP_SETPCAP)) == 0)
        return;
    const auto end = in_child([] {
        jail::end_powers_of_root();
        ::execl("/bin/grep", "grep", "-q", "^CapEff:[[:space:]]0000000000000000$",
                "/proc/self/status", nullptr);
        return 2;
    });
    CHECK(end.signal == 0);
    CHECK(end.status == 0);
}

TEST_CASE("a vCPU's thread in the jail logs, and gives memory back") {
    if (has_sanitizer())
        return;
    const auto end = in_child([] {
        if (!jail::enter({}))
            return 1;
        bool lived = false;
        std::thread([&] {
            if (!jail::enter_thread(jail::ThreadKind::Vcpu, jail::FilterMode::Enforce))
                return;
            Log::to_stderr(LogLevel::Warn).warn("a line of the jail's test");
            for (int round = 0; round < 4; ++round) {
                std::vector<std::string> small;
                for (int i = 0; i < 20'000; ++i)
                    small.emplace_back(100, 'x');
            }
            lived = true;
        }).join();
        return lived ? 0 : 2;
    });
    CHECK(end.signal == 0);
    CHECK(end.status == 0);
}

TEST_CASE("without a jail nothing changes") {
    const auto end = in_child([] {
        const auto jail = jail::enter({.filters = jail::FilterMode::Off});
        return jail && jail->walls.empty() && status_has("\nSeccomp:\t0\n") ? 0 : 1;
    });
    // Where the tests themselves run behind a filter, the kernel says so.
    if (status_has("\nSeccomp:\t0\n"))
        CHECK(end.status == 0);
}
