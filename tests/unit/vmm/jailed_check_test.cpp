// What a jailed monitor refuses, and what it does not.
#include "vmm/jailed_check.hpp"

#include <doctest/doctest.h>

using namespace masu;

TEST_CASE("a jailed monitor opens a TAP that is there, and makes none") {
    CHECK(check_jailed(NetworkInterfaceConfig{.host_dev_name = "lo"}));
    CHECK(check_jailed(NetworkInterfaceConfig{.host_dev_name = "masu-none0", .tap_fds = {7}}));
    CHECK(check_jailed(NetworkInterfaceConfig{.passt_fd = 7}));
    const auto missing = check_jailed(NetworkInterfaceConfig{.host_dev_name = "masu-none0"});
    REQUIRE_FALSE(missing);
    CHECK(missing.error().message.contains("there is no TAP masu-none0"));
    CHECK(missing.error().message.contains("without --jail"));
}

TEST_CASE("a jailed monitor has no vsock") {
    const auto refused = check_jailed(VsockConfig{.guest_cid = 3, .uds_path = "/tmp/vsock"});
    REQUIRE_FALSE(refused);
    CHECK(refused.error().message.contains("--jail"));
}

TEST_CASE("a jailed monitor maps a memory file, and takes no page fault handler") {
    CHECK(check_jailed(action::LoadSnapshot{.directory = "/srv/saved"}));
    const auto refused = check_jailed(action::LoadSnapshot{.memory_handler = "/srv/handler"});
    REQUIRE_FALSE(refused);
    CHECK(refused.error().message.contains("page fault handler"));
}
