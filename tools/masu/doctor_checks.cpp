// Probes of the host: KVM, the monitor, io_uring, limits, and programs that help.
#include "tools/masu/doctor_checks.hpp"

#include <fcntl.h>
#include <linux/io_uring.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "base/atomic_file.hpp"
#include "base/bytes.hpp"
#include "base/fd.hpp"
#include "tools/masu/monitor_process.hpp"
#include "vmm/doctor_probe.hpp"

namespace masu::cli {
namespace {

constexpr std::uint64_t least_memory = 256 * MiB;  // a small Debian guest
constexpr rlim_t least_files = 1024;
constexpr rlim_t least_locked = 8 * MiB;  // io_uring's rings, on kernels before 5.12

Check check_kvm() {
    auto probe = probe_kvm();
    return {"kvm", probe.kind == KvmKind::Hardware ? Verdict::Good : Verdict::Problem,
            std::move(probe.verdict), std::move(probe.remedy), std::move(probe.details)};
}

Check check_monitor() {
    const auto monitor = find_monitor();
    if (!monitor)
        return {"monitor", Verdict::Problem, monitor.error().message, "", {}};
    return {"monitor", Verdict::Good, "the monitor is " + *monitor, "", {}};
}

Check check_io_uring() {
    io_uring_params parameters{};
    const Fd ring(static_cast<int>(::syscall(SYS_io_uring_setup, 2U, &parameters)));
    if (ring)
        return {"io_uring", Verdict::Good, "io_uring works", "", {}};
    return {"io_uring",
            Verdict::Note,
            fmt::format("io_uring is refused ({}), so disks use slower, synchronous I/O",
                        std::strerror(errno)),
            "Allow it: sysctl kernel.io_uring_disabled=0, and no seccomp filter of a container "
            "against it.",
            {}};
}

Check check_memory() {
    const auto text = read_file("/proc/meminfo", 64 * KiB);
    const auto available = text ? available_memory(*text) : std::nullopt;
    if (!available)
        return {"memory", Verdict::Note, "how much memory is free is not known", "", {}};
    const auto finding = format_size(align_down(*available, MiB)) + " of memory are available";
    if (*available < least_memory)
        return {"memory",
                Verdict::Note,
                finding + ", little for a guest",
                "End other programs, or give guests less with --memory.",
                {}};
    return {"memory", Verdict::Good, finding, "", {}};
}

std::string limit_text(rlim_t limit) {
    return limit == RLIM_INFINITY ? "unlimited" : std::to_string(limit);
}

Check check_limits() {
    rlimit files{};
    rlimit locked{};
    ::getrlimit(RLIMIT_NOFILE, &files);
    ::getrlimit(RLIMIT_MEMLOCK, &locked);
    const auto finding =
        fmt::format("limits: {} open files, {} of locked memory", limit_text(files.rlim_cur),
                    locked.rlim_cur == RLIM_INFINITY ? "unlimited" : format_size(locked.rlim_cur));
    if (files.rlim_cur < least_files)
        return {
            "limits", Verdict::Note, finding, "Raise the limit of open files: ulimit -n 4096.", {}};
    if (locked.rlim_cur < least_locked)
        return {"limits",
                Verdict::Note,
                finding,
                "Raise the limit of locked memory (ulimit -l, or LimitMEMLOCK= of a service) if "
                "io_uring is refused.",
                {}};
    return {"limits", Verdict::Good, finding, "", {}};
}

bool on_path(std::string_view program) {
    const char* search = std::getenv("PATH");
    std::string_view rest = search == nullptr ? "" : search;
    while (!rest.empty()) {
        const auto end = rest.find(':');
        const auto path = fmt::format("{}/{}", rest.substr(0, end), program);
        if (::access(path.c_str(), X_OK) == 0)
            return true;
        rest = end == std::string_view::npos ? "" : rest.substr(end + 1);
    }
    return false;
}

Check check_qemu(bool needed) {
    if (on_path("qemu-system-x86_64"))
        return {"qemu",
                Verdict::Good,
                needed ? "qemu-system-x86_64 is there, so that VMs can run nested in it"
                       : "qemu-system-x86_64 is there (not needed here)",
                "",
                {}};
    if (!needed)
        return {"qemu", Verdict::Good, "qemu-system-x86_64 is absent, and not needed here", "", {}};
    return {"qemu",
            Verdict::Note,
            "qemu-system-x86_64, in which VMs could run nested, is absent",
            "Install it: apt install qemu-system-x86.",
            {}};
}

}  // namespace

std::optional<std::uint64_t> available_memory(std::string_view meminfo) {
    constexpr std::string_view key = "MemAvailable:";
    const auto found = meminfo.find(key);
    if (found == std::string_view::npos)
        return std::nullopt;
    auto rest = meminfo.substr(found + key.size());
    rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
    std::uint64_t kib = 0;
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), kib);
    if (error != std::errc() || kib > std::uint64_t{1} << 50)
        return std::nullopt;
    return kib * KiB;
}

std::vector<Check> check_machine() {
    std::vector<Check> checks;
    checks.push_back(check_kvm());
    const bool direct = checks.front().verdict == Verdict::Good;
    checks.push_back(check_monitor());
    checks.push_back(check_io_uring());
    checks.push_back(check_memory());
    checks.push_back(check_limits());
    checks.push_back(check_qemu(!direct));
    return checks;
}

}  // namespace masu::cli
