// The doctor's questions.
#include "tools/masu/doctor_checks.hpp"

#include <doctest/doctest.h>

namespace masu::cli {

TEST_CASE("available memory is read off meminfo") {
    CHECK(available_memory("MemTotal: 9 kB\nMemAvailable:    2048 kB\n") == 2048 * 1024);
    CHECK_FALSE(available_memory("MemTotal: 9 kB\n"));
    CHECK_FALSE(available_memory("MemAvailable:"));
    CHECK_FALSE(available_memory("MemAvailable: lots"));
}

TEST_CASE("every problem says what to do") {
    for (const auto& check : check_machine()) {
        CAPTURE(check.name);
        CHECK_FALSE(check.finding.empty());
        if (check.name == "kvm" && check.verdict == Verdict::Problem)
            CHECK_FALSE(check.remedy.empty());
    }
}

}  // namespace masu::cli
