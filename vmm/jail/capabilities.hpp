// What root can do beyond a user, given up.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/log.hpp"
#include "base/result.hpp"

namespace masu::jail {

// A set of capabilities, by bit (CAP_* of linux/capability.h).
using Capabilities = std::uint64_t;
constexpr Capabilities capability(int number) noexcept {
    return Capabilities{1} << number;
}

// The calling thread's permitted ones.
[[nodiscard]] Result<Capabilities> permitted_capabilities();

// Of the calling thread's, keeps these where it has them. Effective and permitted are one set
// afterwards; the inheritable and ambient sets are empty. Threads made later inherit that.
[[nodiscard]] Result<> keep_capabilities(Capabilities kept);

// For good, root is a user like others: no program that is ever executed gets a capability for
// being root's (securebits, capabilities(7)). To empty the bounding set would do the same at the
// price of a call for each capability there is. Nothing happens where the thread may not (without
// CAP_SETPCAP), as then it has nothing to hand on either.
void end_powers_of_root() noexcept;

// Until the guest runs, nobody hostile is in the process: a TAP of another user is opened
// (CAP_NET_ADMIN), and so are files of other users (CAP_DAC_OVERRIDE).
[[nodiscard]] Capabilities set_up_capabilities() noexcept;

// A file that is opened anew while the guest runs, when it reboots.
struct ReopenedFile {
    std::string path;
    bool writable = false;
};

// Right before the guest runs: gives up all of them. Only where one of the files would be out of
// reach then (root's VM on the disk of another user) CAP_DAC_OVERRIDE stays, and the log says so.
[[nodiscard]] Result<> give_up_set_up_capabilities(std::span<const ReopenedFile> files,
                                                   const Log& log);

}  // namespace masu::jail
