// The monitor's state machine on a fake machine: configuration, starts, reboots and ends.
#include "vmm/monitor.hpp"

#include <doctest/doctest.h>
#include <unistd.h>

#include <array>
#include <string>

#include "base/atomic_file.hpp"
#include "tests/unit/vmm/monitor_bench.hpp"

using namespace masu;
using namespace masu::fake;

TEST_CASE("every action knows the states it is allowed in") {
    const auto before = std::to_array<VmmAction>(
        {action::SetMachineConfig{}, action::PatchMachineConfig{.vcpu_count = 2},
         action::SetBootSource{{.kernel_image_path = "/k"}},
         action::SetDrive{{.drive_id = "a", .path_on_host = "/a"}}, action::SetEntropy{},
         action::SetLogger{}, action::SetSerial{}});
    const auto after = std::to_array<VmmAction>(
        {action::PatchDrive{.drive_id = "a"}, action::Pause{}, action::Resume{},
         action::FlushMetrics{}, action::SendCtrlAltDel{}, action::PressPowerButton{}});
    const auto always = std::to_array<VmmAction>({action::GetInstanceInfo{}, action::GetVersion{},
                                                  action::GetMachineConfig{}, action::GetVmConfig{},
                                                  action::GetMetrics{}, action::GetBootTimer{}});
    Bench bench;
    for (const auto& action : always)
        CHECK(bench.apply(action));
    for (const auto& action : before)
        CHECK(bench.apply(action));
    for (const auto& action : after)
        CHECK(bench.refusal(action).ends_with("before the instance has started"));
    bench.start();
    for (const auto& action : always)
        CHECK(bench.apply(action));
    for (const auto& action : before)
        CHECK(bench.refusal(action).ends_with("after the instance has started"));
    CHECK(bench.refusal(action::StartInstance{}).ends_with("after the instance has started"));
    for (const auto& action : after)
        CHECK(bench.apply(action));
    CHECK(bench.apply(action::Stop{}));
    CHECK(bench.refusal(action::GetVersion{}).ends_with("has ended"));
}

TEST_CASE("a start that fails can be mended and tried again") {
    Bench bench;
    CHECK(bench.refusal(action::StartInstance{}).find("kernel") != std::string::npos);
    CHECK(bench.apply(action::SetBootSource{{.kernel_image_path = "/k"}}));
    bench.record.refuse_creation = true;
    CHECK(bench.refusal(action::StartInstance{}) == "no machine");
    bench.record.refuse_creation = false;
    bench.record.refuse_start = true;
    CHECK(bench.refusal(action::StartInstance{}) == "no start");
    CHECK(bench.record.alive == 0);
    CHECK(bench.state() == VmState::NotStarted);
    bench.record.refuse_start = false;
    CHECK(bench.apply(action::StartInstance{}));
    CHECK(bench.state() == VmState::Running);
    CHECK(bench.exits.empty());
}

TEST_CASE("a refused configuration changes nothing") {
    Bench bench;
    CHECK(bench.apply(action::SetMachineConfig{{.vcpu_count = 2, .mem_size_mib = 256}}));
    CHECK_FALSE(bench.apply(action::SetMachineConfig{{.vcpu_count = 99}}));
    CHECK_FALSE(bench.apply(action::PatchMachineConfig{.vcpu_count = 4, .mem_size_mib = 1}));
    CHECK(bench.apply(action::PatchMachineConfig{.vcpu_count = 8}));
    const auto reply = std::get<MachineConfig>(*bench.monitor.apply(action::GetMachineConfig{}));
    CHECK(reply.vcpu_count == 8);
    CHECK(reply.mem_size_mib == 256);
    CHECK_FALSE(bench.apply(action::SetDrive{{.drive_id = "bad id", .path_on_host = "/a"}}));
    const auto full = std::get<FullConfig>(*bench.monitor.apply(action::GetVmConfig{}));
    CHECK(full.vm.drives.empty());
    CHECK(full.vm.id == "vm-1");
}

TEST_CASE("pause and resume reach the machine once each") {
    Bench bench;
    bench.start();
    CHECK(bench.apply(action::Pause{}));
    CHECK(bench.apply(action::Pause{}));
    CHECK(bench.state() == VmState::Paused);
    CHECK(bench.apply(action::Resume{}));
    CHECK(bench.apply(action::Resume{}));
    CHECK(bench.state() == VmState::Running);
    CHECK(bench.record.count("pause") == 1);
    CHECK(bench.record.count("resume") == 1);
}

TEST_CASE("a drive's changes last through a reboot") {
    Bench bench;
    bench.start();
    CHECK(bench.apply(action::PatchDrive{.drive_id = "a"}));
    CHECK(bench.record.calls.back() == "drive a ");
    CHECK_FALSE(bench.apply(action::PatchDrive{.drive_id = "a", .path_on_host = "/missing"}));
    CHECK(bench.apply(action::PatchDrive{
        .drive_id = "a",
        .path_on_host = "/b",
        .rate_limiter = RateLimiterConfig{.bandwidth = TokenBucketConfig{1, 2, 3}, .ops = {}}}));
    CHECK(bench.apply(action::PatchDrive{
        .drive_id = "a",
        .path_on_host = {},
        .rate_limiter = RateLimiterConfig{.bandwidth = {}, .ops = TokenBucketConfig{4, 5, 6}}}));
    CHECK(bench.record.count("drive a /b") == 1);
    CHECK(bench.record.limits.bandwidth == TokenBucketConfig{1, 2, 3});
    CHECK(bench.record.limits.ops == TokenBucketConfig{4, 5, 6});
    CHECK(bench.refusal(action::PatchDrive{.drive_id = "z"}) == "there is no drive z");
    bench.stop(StopKind::Reset);
    CHECK(bench.record.config.drives.at(0).path_on_host == "/b");
    CHECK(bench.record.config.drives.at(0).rate_limiter == bench.record.limits);
}

TEST_CASE("power-off ends with success, triple fault and error do not") {
    struct End {
        StopKind kind;
        ExitStatus status;
        const char* name;
    };
    for (const auto& end : {End{StopKind::PowerOff, ExitStatus::Success, "power-off"},
                            End{StopKind::TripleFault, ExitStatus::TripleFault, "triple-fault"},
                            End{StopKind::Error, ExitStatus::Error, "error"}}) {
        Bench bench;
        bench.start();
        bench.stop(end.kind);
        REQUIRE(bench.exits.size() == 1);
        CHECK(bench.exits[0].status == end.status);
        CHECK(bench.exits[0].kind == end.name);
        CHECK_FALSE(bench.exits[0].reason.empty());
        CHECK(bench.record.alive == 0);
    }
}

TEST_CASE("stop destroys the machine, then reports success, once") {
    Bench bench;
    bench.start();
    bench.monitor.stop("stopped by signal SIGTERM");
    bench.monitor.stop("again");
    REQUIRE(bench.exits.size() == 1);
    CHECK(bench.exits[0].status == ExitStatus::Success);
    CHECK(bench.exits[0].reason == "stopped by signal SIGTERM");
    CHECK(bench.record.alive == 0);
}

TEST_CASE("a reboot makes the same machine anew, any number of times") {
    Bench bench;
    bench.start();
    for (int i = 0; i < 10; ++i) {
        bench.boot_timer.mark(Milestone::Init);
        bench.pass(10);
        bench.stop(StopKind::Reset);
        REQUIRE(bench.exits.empty());
        CHECK(bench.record.alive == 1);
        CHECK(bench.state() == VmState::Running);
        CHECK_FALSE(bench.boot_timer.since_start(Milestone::Init).has_value());
    }
    CHECK(bench.record.count("create") == 11);
    CHECK(bench.record.count("start") == 11);
}

TEST_CASE("three failed boots in a row end the monitor") {
    Bench bench;
    bench.start();
    bench.pass(9);
    bench.stop(StopKind::Reset);
    bench.pass(9);
    bench.stop(StopKind::Reset);
    bench.pass(60);
    bench.stop(StopKind::Reset);  // a good one: the count starts over
    bench.stop(StopKind::Reset);
    bench.stop(StopKind::Reset);
    CHECK(bench.exits.empty());
    bench.stop(StopKind::Reset);
    REQUIRE(bench.exits.size() == 1);
    CHECK(bench.exits[0].status == ExitStatus::Error);
    CHECK(bench.exits[0].kind == "reset-loop");
    CHECK(bench.record.alive == 0);
}

TEST_CASE("panics count however long the guest ran, and end as panics") {
    Bench bench;
    bench.start();
    for (int i = 0; i < 3; ++i) {
        CHECK(bench.exits.empty());
        bench.pass(1000);
        bench.stop(StopKind::Panic, "the guest's kernel panicked");
    }
    REQUIRE(bench.exits.size() == 1);
    CHECK(bench.exits[0].status == ExitStatus::GuestPanic);
    CHECK(bench.exits[0].kind == "panic");
    CHECK(bench.exits[0].reason == "the guest's kernel panicked");
}

TEST_CASE("a panic on the console makes the reset a panic, with its words as the reason") {
    Bench bench(false);
    bench.start();
    bench.print("[    1.2] Kernel pan");
    bench.print("ic - not syncing: VFS: Unable to mount root fs\r\n[   1.3] CPU: 0\r\n");
    bench.stop(StopKind::Reset);
    REQUIRE(bench.exits.size() == 1);
    CHECK(bench.exits[0].status == ExitStatus::GuestPanic);
    CHECK(bench.exits[0].reason.ends_with(
        "Kernel panic - not syncing: VFS: Unable to mount root fs"));
}

TEST_CASE("a panic of the boot before is forgotten") {
    Bench bench;
    bench.start();
    bench.print("Kernel panic - not syncing: once\n");
    bench.stop(StopKind::Reset);
    bench.pass(100);
    bench.stop(StopKind::Reset);
    bench.stop(StopKind::Reset);
    bench.stop(StopKind::Reset);
    CHECK(bench.exits.empty());
    CHECK(bench.metrics.counter("vmm", "panics").value() == 1);
    CHECK(bench.metrics.counter("vmm", "resets").value() == 3);
}

TEST_CASE("with --no-reboot a reset is the end, and a success") {
    Bench bench(false);
    bench.start();
    bench.stop(StopKind::Reset);
    REQUIRE(bench.exits.size() == 1);
    CHECK(bench.exits[0].status == ExitStatus::Success);
    CHECK(bench.exits[0].reason == "the guest asked for a reboot");
}

TEST_CASE("a reboot that cannot start the machine again ends with the reason") {
    Bench bench;
    bench.start();
    bench.record.refuse_creation = true;
    bench.stop(StopKind::Reset);
    REQUIRE(bench.exits.size() == 1);
    CHECK(bench.exits[0].status == ExitStatus::Error);
    CHECK(bench.exits[0].reason.find("no machine") != std::string::npos);
}

TEST_CASE("the last words of a machine that is gone are not heard") {
    Bench bench;
    bench.start();
    const auto stopped = bench.record.context->stopped;
    bench.pass(100);
    stopped({StopKind::Reset, "first"});
    stopped({StopKind::PowerOff, "late"});
    CHECK(bench.exits.empty());
    CHECK(bench.record.alive == 1);
}

TEST_CASE("a guest that resets while paused comes back paused") {
    Bench bench;
    bench.start();
    CHECK(bench.apply(action::Pause{}));
    bench.stop(StopKind::Reset);
    CHECK(bench.state() == VmState::Paused);
    CHECK(bench.record.count("start") == 1);
    CHECK(bench.apply(action::Resume{}));
    CHECK(bench.record.count("start") == 2);
    CHECK(bench.record.count("resume") == 0);
}

TEST_CASE("metrics go to their file when flushed and at the end") {
    char folder[] = "/tmp/masu-monitor-XXXXXX";
    REQUIRE(::mkdtemp(folder) != nullptr);
    const auto path = std::string(folder) + "/metrics";
    Bench bench;
    bench.metrics.counter("uart", "out").add(7);
    CHECK(bench.apply(action::SetMetrics{{path, true, {{"zone", "a"}}}}));
    CHECK(bench.refusal(action::SetMetrics{{path, false, {}}}).find(path) != std::string::npos);
    bench.start();
    CHECK(bench.apply(action::FlushMetrics{}));
    const std::string line =
        R"({"id":"vm-1","properties":{"zone":"a"},"utc_timestamp_ms":42,"uart":{"out":7}})"
        "\n";
    CHECK(*read_file(path, 4096) == line);
    bench.monitor.stop("enough");
    CHECK(*read_file(path, 4096) == line + line);
    ::unlink(path.c_str());
    ::rmdir(folder);
}

TEST_CASE("the panic line is found in any pieces, and within bounds") {
    const auto feed = [](PanicLine& line, std::string_view text) {
        line.feed(std::as_bytes(std::span(text)));
    };
    PanicLine line;
    feed(line, "Kernel panic - not sync");
    CHECK_FALSE(line.found().has_value());
    feed(line, "ing: A\x1b");
    CHECK(line.found() == "Kernel panic - not syncing: A");  // also before the line ends
    feed(line, "B\nKernel panic - not syncing: C\n");
    CHECK(line.found() == "Kernel panic - not syncing: AB");

    line.reset();
    feed(line, std::string(100'000, 'x') + "Kernel panic - not syncing: far out");
    CHECK(line.found() == "Kernel panic - not syncing: far out");

    line.reset();
    feed(line, "Kernel panic - not syncing: " + std::string(100'000, 'y'));
    REQUIRE(line.found().has_value());
    CHECK(line.found()->size() == PanicLine::max_line);
}
