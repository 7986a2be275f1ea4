// The kernel command line.
#include "tools/masu/boot_line.hpp"

#include <doctest/doctest.h>

#include "vmm/config.hpp"

namespace masu::cli {

TEST_CASE("Masu's words come first, so that a person's win") {
    const std::string defaults = default_boot_args;
    CHECK(make_boot_args("", false, false) == defaults);
    CHECK(make_boot_args("quiet", false, false) == defaults + " quiet");
}

TEST_CASE("a disk without root= is the root") {
    const std::string defaults = default_boot_args;
    CHECK(make_boot_args("", true, false) == defaults + " root=/dev/vda rw");
    CHECK(make_boot_args("", true, true) == defaults + " root=/dev/vda ro");
    CHECK(make_boot_args("ro quiet", true, false) == defaults + " root=/dev/vda ro quiet");
    CHECK(make_boot_args("root=/dev/vda1 ro", true, false) == defaults + " root=/dev/vda1 ro");
    CHECK(make_boot_args("notroot=x", true, false) == defaults + " root=/dev/vda rw notroot=x");
    // What follows "--" is for init.
    CHECK(make_boot_args("-- root=x", true, false) == defaults + " root=/dev/vda rw -- root=x");
}

}  // namespace masu::cli
