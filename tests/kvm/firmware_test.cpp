// The firmware and the EFI test application (guest/efi_test), in whole machines.
#include <doctest/doctest.h>

#include "tests/kvm/firmware_machine.hpp"

using namespace masu;
using namespace masu::test;

TEST_CASE("the firmware says in one line why it finds nothing to boot, and the machine ends") {
    const DiskFile empty("", 1 << 20);
    const auto ended = run_guest({.disks = {empty.path()}});
    CAPTURE(ended.console);
    REQUIRE(ended.stop);
    CHECK(ended.stop->kind == StopKind::Error);
    CHECK(ended.entry);
    CHECK_FALSE(ended.loader);
    CHECK(ended.says("masu: nothing more to try"));
}

#ifdef MASU_EFI_TEST_DISK

TEST_CASE("every service does as UEFI says, before and after ExitBootServices") {
    for (const std::uint64_t mib : {64U, 6144U}) {
        CAPTURE(mib);
        const DiskFile disk(MASU_EFI_TEST_DISK);
        const auto ended = run_guest({.disks = {disk.path()}, .memory_mib = mib});
        CAPTURE(ended.console);
        REQUIRE(ended.stop);
        CHECK(ended.stop->kind == StopKind::PowerOff);
        CHECK(ended.loader);
        CHECK(ended.handover);
        CHECK(ended.says(" checks, 0 failed"));
    }
}

TEST_CASE("a loader that returns is followed by the next disk's") {
    const DiskFile first(MASU_EFI_TEST_DISK);
    const DiskFile second(MASU_EFI_TEST_DISK);
    const auto ended =
        run_guest({.disks = {first.path(), second.path()}, .load_options = "return"});
    CAPTURE(ended.console);
    CHECK(ended.says("the boot loader of disk 1 ended with status 0x8000000000000003"));
    CHECK(ended.says("the boot loader of disk 2 ended with status 0x8000000000000003"));
    REQUIRE(ended.stop);
    CHECK(ended.stop->kind == StopKind::Error);
}

TEST_CASE("only the disk that was asked for is booted") {
    const DiskFile empty("", 1 << 20);
    const DiskFile second(MASU_EFI_TEST_DISK);
    const Input input{
        .disks = {empty.path(), second.path()}, .load_options = "return", .boot_device = 2};
    CHECK(run_guest(input).says("the boot loader of disk 2 ended"));
    auto other = input;
    other.boot_device = 1;
    const auto ended = run_guest(other);
    CHECK_FALSE(ended.says("the boot loader of disk"));
    REQUIRE(ended.stop);
}

TEST_CASE("the menu opens on a key and starts what is chosen") {
    const DiskFile first(MASU_EFI_TEST_DISK);
    const DiskFile second(MASU_EFI_TEST_DISK);
    const auto ended = run_guest({.disks = {first.path(), second.path()},
                                  .load_options = "return",
                                  .boot_menu = true,
                                  .typing = {.wait_for = "press any key", .type = " 2"}});
    CAPTURE(ended.console);
    CHECK(ended.says("2  disk 2, partition 1: \\EFI\\BOOT\\BOOTX64.EFI"));
    const auto second_at = ended.console.find("the boot loader of disk 2 ended");
    const auto first_at = ended.console.find("the boot loader of disk 1 ended");
    REQUIRE(second_at != std::string::npos);
    CHECK(second_at < first_at);
}

TEST_CASE("a loader that resets, and one that crashes") {
    const DiskFile disk(MASU_EFI_TEST_DISK);
    const auto reset = run_guest({.disks = {disk.path()}, .load_options = "reset"});
    REQUIRE(reset.stop);
    CHECK(reset.stop->kind == StopKind::Reset);
    const auto crash = run_guest({.disks = {disk.path()}, .load_options = "fault"});
    CAPTURE(crash.console);
    REQUIRE(crash.stop);
    CHECK(crash.stop->kind == StopKind::Error);
    CHECK(crash.says("masu: exception 6"));
    CHECK(crash.says("in a boot loader"));
}

TEST_CASE("a damaged loader and a damaged partition table are named") {
    const DiskFile loader(MASU_EFI_TEST_DISK);
    loader.overwrite(std::string_view("PE\0\0", 4), "XX");
    const auto ended = run_guest({.disks = {loader.path()}});
    CAPTURE(ended.console);
    CHECK(ended.says("masu: not a boot loader: it has no PE header"));
    REQUIRE(ended.stop);
    CHECK(ended.stop->kind == StopKind::Error);
    const DiskFile table(MASU_EFI_TEST_DISK);
    table.overwrite("EFI PART", "EFI DIRT");
    table.overwrite("EFI PART", "EFI DIRT");
    const auto unsound = run_guest({.disks = {table.path()}});
    CAPTURE(unsound.console);
    CHECK(unsound.says("masu: disk 1: the partition table is unusable"));
    CHECK(unsound.stop);
}

#endif
