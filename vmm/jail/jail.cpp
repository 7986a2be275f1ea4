// Puts the walls up in the order in which they do not stand in each other's way.
#include "vmm/jail/jail.hpp"

#include <sys/prctl.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>

#include "vmm/jail/capabilities.hpp"

namespace masu::jail {
namespace {

// Guest memory and keys must not end up in a core file. 0 would stop a file, but not a program that
// the kernel pipes the dump to; for that, 1 is the value that says no. Who may not have that much,
// since a limit of 0 was set before, has 0.
Result<> forbid_core_dumps() {
    rlimit none{};
    if (::getrlimit(RLIMIT_CORE, &none) < 0)
        return fail_errno(errno, "the limit on core dumps cannot be read");
    none.rlim_max = std::min<rlim_t>(none.rlim_max, 1);
    none.rlim_cur = none.rlim_max;
    if (::setrlimit(RLIMIT_CORE, &none) < 0)
        return fail_errno(errno, "core dumps cannot be ruled out");
    return {};
}

// The number of descriptors that was enough so far cannot be raised any more.
Result<> fix_descriptor_limit() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return fail_errno(errno, "the limit on descriptors cannot be read");
    limit.rlim_max = limit.rlim_cur;
    if (::setrlimit(RLIMIT_NOFILE, &limit) < 0)
        return fail_errno(errno, "the limit on descriptors cannot be fixed");
    return {};
}

}  // namespace

std::vector<std::string> arguments(const Options& options) {
    if (options.filters == FilterMode::Off)
        return {"--no-jail"};
    std::vector<std::string> words;
    if (options.filters == FilterMode::Log)
        words.insert(words.end(), {"--seccomp", "log"});
    for (const auto& path : options.files.read)
        words.insert(words.end(), {"--jail-read", path});
    for (const auto& path : options.files.write)
        words.insert(words.end(), {"--jail-write", path});
    for (const auto& path : options.files.sockets)
        words.insert(words.end(), {"--jail-socket", path});
    return words;
}

Result<Jail> enter(const Options& options) {
    if (options.filters == FilterMode::Off)
        return Jail{};
    TRY(forbid_core_dumps());
    TRY(fix_descriptor_limit());
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return fail_errno(errno, "no_new_privs cannot be set");
    end_powers_of_root();
    TRY(keep_capabilities(set_up_capabilities()));
    Jail jail{.walls = {"no-new-privileges", "no-capabilities", "rlimits"},
              .files = TRY(confine_files(options.files))};
    if (jail.files.abi > 0)
        jail.walls.push_back(fmt::format("landlock {}{}", jail.files.abi,
                                         options.files.given() ? "" : " (files by default)"));
    TRY(enter_filter(ThreadKind::Loop, options.filters));
    jail.walls.emplace_back(options.filters == FilterMode::Log ? "seccomp (log only)" : "seccomp");
    return jail;
}

// All but a snapshot's writer may have been made while the loop still had the set-up's
// capabilities.
Result<> enter_thread(ThreadKind kind, FilterMode mode) {
    if (mode == FilterMode::Off)
        return {};
    if (kind != ThreadKind::Copy)
        TRY(keep_capabilities(0));
    return enter_filter(kind, mode);
}

}  // namespace masu::jail
