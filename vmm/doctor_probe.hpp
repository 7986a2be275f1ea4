// Finds out by trying what kind of KVM this machine has.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace masu {

enum class KvmKind {
    Absent,        // no /dev/kvm
    NoPermission,  // it is there, and not for this user
    Unusable,      // it opens, but lacks something Masu needs
    Software,  // it runs bare-metal payloads, but interprets guest kernel code and cannot run Linux
    Hardware,  // stock guests run
};

struct KvmProbe {
    KvmKind kind = KvmKind::Absent;
    std::string verdict;               // one sentence
    std::string remedy;                // one sentence; empty for Hardware
    std::vector<std::string> details;  // what was tried, and what came of it, a line each
};

// Runs a probe guest of a few instructions; takes a few milliseconds, and at most some five seconds.
// Any thread; never fails.
[[nodiscard]] KvmProbe probe_kvm(const std::string& device = "/dev/kvm");

// "absent" "no-permission" "unusable" "software" "hardware"
[[nodiscard]] std::string_view to_string(KvmKind kind);

}  // namespace masu
