// The firmware and the EFI test application (guest/efi_test), in whole machines.
#include <doctest/doctest.h>

#include <unistd.h>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "firmware/boot_info.hpp"
#include "vmm/machine.hpp"

using namespace masu;

namespace {

// A file that may be written to, gone at the end; a copy of `from` unless that is empty.
class DiskFile {
  public:
    explicit DiskFile(const std::string& from, std::size_t size = 0) {
        const Fd fd(::mkstemp(path_.data()));
        REQUIRE(fd);
        if (!from.empty())
            std::filesystem::copy_file(from, path_,
                                       std::filesystem::copy_options::overwrite_existing);
        else
            std::filesystem::resize_file(path_, size);
    }
    ~DiskFile() { ::unlink(path_.c_str()); }
    DiskFile(const DiskFile&) = delete;
    DiskFile& operator=(const DiskFile&) = delete;
    [[nodiscard]] const std::string& path() const { return path_; }
    void overwrite(std::string_view what, std::string_view with) const {
        std::ifstream in(path_, std::ios::binary);
        std::string all((std::istreambuf_iterator<char>(in)), {});
        const auto at = all.find(what);
        REQUIRE(at != std::string::npos);
        all.replace(at, with.size(), with);
        std::ofstream(path_, std::ios::binary) << all;
    }

  private:
    std::string path_ = "/tmp/masu-firmware-test-XXXXXX";
};

struct Ended {
    std::string console;
    std::optional<StopEvent> stop;
    bool entry = false, loader = false, handover = false;
};

struct Input {
    std::vector<std::string> disks;
    std::string load_options;
    std::uint64_t memory_mib = 64;
    bool boot_menu = false;
    unsigned boot_device = 0;
    std::string wait_for;  // once this is on the console,
    std::string type;      // this is typed
};

VmConfig config_of(const Input& input) {
    VmConfig config;
    config.machine.mem_size_mib = input.memory_mib;
    BootSource source;
    source.firmware = true;
    source.boot_menu = input.boot_menu;
    source.boot_device = input.boot_device;
    if (!input.load_options.empty())
        source.boot_args = input.load_options;
    config.boot_source = source;
    for (const auto& path : input.disks) {
        DriveConfig drive;
        drive.drive_id = "disk" + std::to_string(config.drives.size());
        drive.path_on_host = path;
        config.drives.push_back(drive);
    }
    config.entropy = EntropyConfig{};
    return config;
}

Ended run_guest(const Input& input) {
    auto loop = std::move(*EventLoop::create());
    const SystemClock clock;
    Metrics metrics;
    BootTimer timer(clock, clock.now());
    Network network(0);
    Ended result;
    Machine* machine = nullptr;
    std::string to_type = input.type;
    auto made = Machine::create(
        config_of(input),
        {.loop = *loop,
         .log = Log::to_stderr(LogLevel::Warn),
         .metrics = metrics,
         .boot_timer = timer,
         .network = network,
         .console_output =
             [&](std::span<const std::byte> bytes) {
                 for (const auto byte : bytes)
                     result.console += static_cast<char>(byte);
                 if (!to_type.empty() && result.console.find(input.wait_for) != std::string::npos) {
                     (void)machine->console_input(std::as_bytes(std::span(to_type)));
                     to_type.clear();
                 }
             },
         .stopped =
             [&](StopEvent event) {
                 result.stop = std::move(event);
                 loop->stop();
             }});
    const std::string error = made ? "" : made.error().message;
    CAPTURE(error);
    REQUIRE(made);
    machine = made->get();
    auto patience = loop->timer([&] { loop->stop(); });
    REQUIRE(patience);
    patience->arm(180'000'000'000);
    REQUIRE((*made)->start());
    loop->run();
    result.entry = timer.since_start(Milestone::FirmwareEntry).has_value();
    result.loader = timer.since_start(Milestone::LoaderStarted).has_value();
    result.handover = timer.since_start(Milestone::KernelHandover).has_value();
    return result;
}

bool says(const Ended& ended, std::string_view text) {
    return ended.console.find(text) != std::string::npos;
}

}  // namespace

TEST_CASE("the firmware says in one line why it finds nothing to boot, and the machine ends") {
    const DiskFile empty("", 1 << 20);
    const auto ended = run_guest({.disks = {empty.path()}});
    CAPTURE(ended.console);
    REQUIRE(ended.stop);
    CHECK(ended.stop->kind == StopKind::Error);
    CHECK(ended.entry);
    CHECK_FALSE(ended.loader);
    CHECK(says(ended, "masu: nothing more to try"));
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
        CHECK(says(ended, " checks, 0 failed"));
    }
}

TEST_CASE("a loader that returns is followed by the next disk's") {
    const DiskFile first(MASU_EFI_TEST_DISK);
    const DiskFile second(MASU_EFI_TEST_DISK);
    const auto ended =
        run_guest({.disks = {first.path(), second.path()}, .load_options = "return"});
    CAPTURE(ended.console);
    CHECK(says(ended, "the boot loader of disk 1 ended with status 0x8000000000000003"));
    CHECK(says(ended, "the boot loader of disk 2 ended with status 0x8000000000000003"));
    REQUIRE(ended.stop);
    CHECK(ended.stop->kind == StopKind::Error);
}

TEST_CASE("only the disk that was asked for is booted") {
    const DiskFile empty("", 1 << 20);
    const DiskFile second(MASU_EFI_TEST_DISK);
    const Input input{
        .disks = {empty.path(), second.path()}, .load_options = "return", .boot_device = 2};
    CHECK(says(run_guest(input), "the boot loader of disk 2 ended"));
    auto other = input;
    other.boot_device = 1;
    const auto ended = run_guest(other);
    CHECK_FALSE(says(ended, "the boot loader of disk"));
    REQUIRE(ended.stop);
}

TEST_CASE("the menu opens on a key and starts what is chosen") {
    const DiskFile first(MASU_EFI_TEST_DISK);
    const DiskFile second(MASU_EFI_TEST_DISK);
    const auto ended = run_guest({.disks = {first.path(), second.path()},
                                  .load_options = "return",
                                  .boot_menu = true,
                                  .wait_for = "press any key",
                                  .type = " 2"});
    CAPTURE(ended.console);
    CHECK(says(ended, "2  disk 2, partition 1: \\EFI\\BOOT\\BOOTX64.EFI"));
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
    CHECK(says(crash, "masu: exception 6"));
    CHECK(says(crash, "in a boot loader"));
}

TEST_CASE("a damaged loader and a damaged partition table are named") {
    const DiskFile loader(MASU_EFI_TEST_DISK);
    loader.overwrite(std::string_view("PE\0\0", 4), "XX");
    const auto ended = run_guest({.disks = {loader.path()}});
    CAPTURE(ended.console);
    CHECK(says(ended, "masu: not a boot loader: it has no PE header"));
    REQUIRE(ended.stop);
    CHECK(ended.stop->kind == StopKind::Error);
    const DiskFile table(MASU_EFI_TEST_DISK);
    table.overwrite("EFI PART", "EFI DIRT");
    table.overwrite("EFI PART", "EFI DIRT");
    const auto unsound = run_guest({.disks = {table.path()}});
    CAPTURE(unsound.console);
    CHECK(says(unsound, "masu: disk 1: the partition table is unusable"));
    CHECK(unsound.stop);
}

#endif
