// The monitor's state machine on a fake machine.
#include "vmm/monitor.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/atomic_file.hpp"
#include "base/bytes.hpp"
#include "devices/net/firewall/compiled_rules.hpp"
#include "tests/unit/devices/net/fake_network.hpp"
#include "vmm/net/guest_network.hpp"
#include "vmm/unix_listener.hpp"

using namespace masu;

namespace {

struct FakeClock final : Clock {
    Nanoseconds time = 1'000'000'000;
    [[nodiscard]] Nanoseconds now() const noexcept override { return time; }
    [[nodiscard]] std::uint64_t wall() const noexcept override { return 42'000'000; }
};

// What happened to all machines of a test, in order.
struct Record {
    std::vector<std::string> calls;
    unsigned alive = 0;
    bool refuse_creation = false;
    bool refuse_start = false;
    bool refuse_state = false;
    MachineContext* context = nullptr;  // of the machine that lives
    VmConfig config;                    // as last created
    RateLimiterConfig limits;
    snapshot::MachineState state;               // what a machine saves
    ClockPolicy clock = ClockPolicy::Continue;  // of the machine restored last
    bool working_set = false;                   // the machine restored last was given one
    PageSet written{64 * MiB / guest_page};     // what collect_writes() finds
    std::vector<std::string> readdressed;       // likewise
    kvm::GuestRam ram = std::move(*kvm::GuestRam::create(64 * MiB, HugePages::None));

    [[nodiscard]] long count(std::string_view call) const {
        return std::ranges::count(calls, call);
    }
};

class FakeMachine final : public Machine {
  public:
    FakeMachine(Record& record, MachineContext context, bool logs_writes = false)
        : record_(record), context_(std::move(context)), logs_writes_(logs_writes) {
        ++record_.alive;
        record_.context = &context_;
    }
    ~FakeMachine() override {
        --record_.alive;
        record_.context = nullptr;
    }
    Result<> restore_state() override {
        if (record_.refuse_state)
            return fail("no memory");
        return call("restore state");
    }
    Result<> start() override {
        if (record_.refuse_start)
            return fail("no start");
        return call("start");
    }
    Result<snapshot::MachineState> save() override {
        record_.calls.emplace_back("save");
        return record_.state;
    }
    const kvm::GuestRam& ram() const override { return record_.ram; }
    Result<> log_writes(bool on) override {
        logs_writes_ = on;
        return call(on ? "log" : "no log");
    }
    bool logs_writes() const override { return logs_writes_; }
    Result<> collect_writes(PageSet& into) override {
        into.merge(record_.written);
        record_.written.clear();
        return {};
    }
    Result<> pause() override { return call("pause"); }
    Result<> resume() override { return call("resume"); }
    void press_power_button() override { std::ignore = call("power button"); }
    void send_ctrl_alt_del() override { std::ignore = call("ctrl-alt-del"); }
    std::size_t console_input(std::span<const std::byte> bytes) override {
        std::ignore = call("input");
        return bytes.size();
    }
    Result<> update_drive(const std::string& id, const std::string& path) override {
        if (path == "/missing")
            return fail("cannot open /missing");
        return call("drive " + id + " " + path);
    }
    Result<> update_drive_limits(const std::string& id, const RateLimiterConfig& limits) override {
        record_.limits = limits;
        return call("limits " + id);
    }
    Result<> update_network_limits(const std::string& id, const RateLimiterConfig& rx,
                                   const RateLimiterConfig& tx) override {
        record_.limits = rx;
        return call("network limits " + id + (tx.ops ? " tx" : ""));
    }

  private:
    Result<> call(std::string name) {
        record_.calls.push_back(std::move(name));
        return {};
    }
    Record& record_;
    MachineContext context_;
    bool logs_writes_;
};

struct Bench {
    std::unique_ptr<EventLoop> loop = *EventLoop::create();
    FakeClock clock;
    Metrics metrics;
    BootTimer boot_timer{clock, 1};
    std::unique_ptr<Console> console = *Console::create(*loop, Log());
    Record record;
    std::vector<MonitorExit> exits;
    Monitor monitor;

    explicit Bench(bool reboot = true)
        : monitor({.loop = *loop,
                   .clock = clock,
                   .metrics = metrics,
                   .boot_timer = boot_timer,
                   .console = *console,
                   .create_machine = [this](const VmConfig& config, MachineContext context)
                       -> Result<std::unique_ptr<Machine>> {
                       if (record.refuse_creation)
                           return fail("no machine");
                       record.config = config;
                       record.calls.emplace_back("create");
                       return std::make_unique<FakeMachine>(record, std::move(context),
                                                            config.machine.track_dirty_pages);
                   },
                   .restore_machine =
                       [this](const VmConfig& config, RestoreSource source,
                              MachineContext context) -> Result<std::unique_ptr<Machine>> {
                       if (record.refuse_creation)
                           return fail("no machine");
                       record.config = config;
                       record.clock = source.clock;
                       record.working_set = source.working_set.has_value();
                       record.readdressed = source.readdressed;
                       record.calls.emplace_back("restore " + source.memory_path);
                       return std::make_unique<FakeMachine>(record, std::move(context));
                   },
                   .ended = [this](const MonitorExit& exit) { exits.push_back(exit); }},
                  Log(), VmConfig{.id = "vm-1"}, reboot) {}

    bool apply(const VmmAction& action) { return monitor.apply(action).has_value(); }
    std::string refusal(const VmmAction& action) {
        const auto result = monitor.apply(action);
        return result ? "" : result.error().message;
    }
    void start() {
        REQUIRE(apply(action::SetBootSource{{.kernel_image_path = "/k"}}));
        REQUIRE(apply(action::SetDrive{{.drive_id = "a", .path_on_host = "/a"}}));
        REQUIRE(apply(action::StartInstance{}));
    }
    void print(std::string_view text) {
        record.context->console_output(std::as_bytes(std::span(text)));
    }
    // As a machine does it: the event comes from the machine that is about to be destroyed.
    void stop(StopKind kind, const char* reason = "why") {
        const auto stopped = record.context->stopped;
        stopped({kind, reason});
    }
    void pass(Nanoseconds seconds) { clock.time += seconds * 1'000'000'000; }
    VmState state() const { return monitor.state(); }
};

}  // namespace

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

namespace {

// An interface on a socket as passt's, whose descriptor the monitor may take once.
NetworkInterfaceConfig on_socket(std::string id, std::vector<Fd>& others) {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    others.emplace_back(ends[1]);
    return {.iface_id = std::move(id), .passt_fd = ends[0]};
}

// A saved machine of one vCPU, in two files of a folder that goes away.
struct SavedVm {
    std::string folder = "/tmp/masu-monitor-test-XXXXXX";
    SavedVm() { REQUIRE(::mkdtemp(folder.data()) != nullptr); }
    ~SavedVm() { std::filesystem::remove_all(folder); }
    [[nodiscard]] action::CreateSnapshot create() const {
        return {.state_path = folder + "/state", .memory_path = folder + "/memory"};
    }
    [[nodiscard]] action::LoadSnapshot load() const {
        return {.state_path = folder + "/state", .memory_path = folder + "/memory"};
    }
};

void make_savable(Record& record) {
    record.state.memory_bytes = record.ram.size();
    record.state.vcpus.resize(1);
}

}  // namespace

TEST_CASE("an interface is opened when it is set, and kept over a reboot") {
    Bench bench;
    std::vector<Fd> others;
    auto first = on_socket("eth0", others);
    REQUIRE(bench.apply(action::SetNetworkInterface{first}));
    CHECK(bench.refusal(action::SetNetworkInterface{first}).find("in use") != std::string::npos);
    auto second = on_socket("eth1", others);
    second.guest_mac = "06:00:00:00:00:01";
    REQUIRE(bench.apply(action::SetNetworkInterface{second}));
    auto third = on_socket("eth2", others);
    third.guest_mac = "06:00:00:00:00:01";
    CHECK(bench.refusal(action::SetNetworkInterface{third}).find("eth1's already") !=
          std::string::npos);
    third.guest_mac = "06:00:00:00:00:02";
    third.network_mac = "06:00:00:00:00:01";
    CHECK(bench.refusal(action::SetNetworkInterface{third}).find("eth1's already") !=
          std::string::npos);
    third.network_mac = "03:00:00:00:00:01";
    CHECK(
        bench.refusal(action::SetNetworkInterface{third}).find("03:00:00:00:00:01 is a group's") !=
        std::string::npos);
    CHECK_FALSE(bench.apply(action::SetNetworkInterface{{.iface_id = "e", .passt_fd = 9999}}));
    CHECK_FALSE(bench.apply(action::SetNetworkInterface{{.iface_id = "e"}}));
    CHECK_FALSE(bench.apply(action::SetNetworkInterface{
        {.iface_id = "e", .guest_mac = "01:00:00:00:00:01", .passt_fd = 5}}));
    CHECK_FALSE(bench.apply(
        action::SetNetworkInterface{{.iface_id = "e", .host_dev_name = "a", .passt_fd = 5}}));
    CHECK_FALSE(
        bench.apply(action::SetNetworkInterface{{.iface_id = "e", .host_dev_name = "a/b"}}));

    bench.start();
    REQUIRE(bench.record.config.network_interfaces.size() == 2);
    // One was made up, and everybody sees the same.
    CHECK(bench.record.config.network_interfaces[0].guest_mac->starts_with("06:"));
    CHECK(bench.record.context->network.find("eth0") != nullptr);
    bench.pass(60);
    bench.stop(StopKind::Reset);
    CHECK(bench.record.count("create") == 2);
    CHECK(bench.record.context->network.find("eth0") != nullptr);
    CHECK_FALSE(bench.apply(action::SetNetworkInterface{first}));

    const TokenBucketConfig bucket{.size = 5, .refill_time_ms = 100};
    CHECK(bench.apply(action::PatchNetworkInterface{
        .iface_id = "eth1", .rx_rate_limiter = {}, .tx_rate_limiter = {.ops = bucket}}));
    CHECK(bench.record.calls.back() == "network limits eth1 tx");
    const auto config = std::get<FullConfig>(*bench.monitor.apply(action::GetVmConfig{}));
    CHECK(config.vm.network_interfaces[1].tx_rate_limiter.ops == bucket);
    CHECK_FALSE(bench.apply(action::PatchNetworkInterface{.iface_id = "no"}));
}

TEST_CASE("metadata: where it may be set, and by which of the two ways") {
    Bench bench;
    std::vector<Fd> others;
    CHECK(bench.apply(action::PutMmds{R"({"a": 1})"}));  // kept until it is served
    CHECK_FALSE(bench.apply(action::SetMmdsConfig{{.network_interfaces = {"eth0"}}}));
    REQUIRE(bench.apply(action::SetNetworkInterface{on_socket("eth0", others)}));
    CHECK_FALSE(bench.apply(action::SetMmdsConfig{}));
    CHECK_FALSE(bench.apply(
        action::SetMmdsConfig{{.network_interfaces = {"eth0"}, .ipv4_address = "10.0.0.1"}}));

    SUBCASE("mmds") {
        REQUIRE(bench.apply(action::SetMmdsConfig{{.network_interfaces = {"eth0"}}}));
        CHECK_FALSE(bench.apply(action::SetInstanceMetadata{}));
        bench.start();
        REQUIRE(bench.apply(action::PatchMmds{R"({"b": 2})"}));
        const auto reply = std::get<JsonText>(*bench.monitor.apply(action::GetMmds{}));
        CHECK(reply.text == R"({"a":1,"b":2})");
        CHECK_FALSE(bench.apply(action::SetMmdsConfig{{.network_interfaces = {"eth0"}}}));
    }
    SUBCASE("instance metadata") {
        InstanceMetadataConfig metadata{.network_interfaces = {"eth0"}};
        metadata.instance.instance_id = "i-1";
        metadata.instance.hostname = "web";
        REQUIRE(bench.apply(action::SetInstanceMetadata{metadata}));
        CHECK_FALSE(bench.apply(action::PutMmds{"{}"}));
        CHECK_FALSE(bench.apply(action::SetMmdsConfig{{.network_interfaces = {"eth0"}}}));
        bench.start();
        metadata.instance.hostname = "other";
        REQUIRE(bench.apply(action::SetInstanceMetadata{metadata}));
        const auto reply = std::get<JsonText>(*bench.monitor.apply(action::GetMmds{}));
        CHECK(reply.text.find(R"("hostname":"other")") != std::string::npos);
        metadata.network_interfaces = {"eth1"};
        CHECK_FALSE(bench.apply(action::SetInstanceMetadata{metadata}));
    }
    SUBCASE("none") {
        bench.start();
        CHECK_FALSE(bench.apply(action::PutMmds{"{}"}));
    }
}

TEST_CASE("flow logs show the account and instance of the metadata, or the account they are told") {
    Bench bench;
    std::vector<Fd> others;
    auto interface = on_socket("eth0", others);
    interface.firewall = true;
    REQUIRE(bench.apply(action::SetNetworkInterface{interface}));
    const auto path = (std::filesystem::temp_directory_path() /
                       ("masu-account-test-" + std::to_string(::getpid())))
                          .string();
    // A log that is replaced writes what its window holds.
    FlowLogConfig log{.path = path, .format = "${account-id} ${instance-id} ${log-status}"};
    const auto last_line = [&] {
        REQUIRE(bench.apply(action::SetFlowLog{.iface_id = "eth0", .config = log}));
        std::ifstream file(path);
        std::string line;
        for (std::string next; std::getline(file, next);)
            line = next;
        return line;
    };
    CHECK(last_line().empty());
    CHECK(last_line() == "- - NODATA");
    InstanceMetadataConfig metadata{.network_interfaces = {"eth0"}};
    metadata.instance.instance_id = "i-1";
    metadata.instance.hostname = "web";
    metadata.instance.account_id = "123456789012";
    REQUIRE(bench.apply(action::SetInstanceMetadata{metadata}));
    CHECK(last_line() == "- - NODATA");
    log.account_id = "999999999999";
    CHECK(last_line() == "123456789012 i-1 NODATA");
    CHECK(last_line() == "999999999999 i-1 NODATA");
    log.account_id = "12 4";
    CHECK_FALSE(bench.apply(action::SetFlowLog{.iface_id = "eth0", .config = log}));
    std::filesystem::remove(path);
}

TEST_CASE("bad instance metadata is refused") {
    Bench bench;
    std::vector<Fd> others;
    REQUIRE(bench.apply(action::SetNetworkInterface{on_socket("eth0", others)}));
    InstanceMetadataConfig good{.network_interfaces = {"eth0"}};
    good.instance.instance_id = "i-0123456789abcdef0";
    const auto refused = [&](auto change) {
        auto metadata = good;
        change(metadata);
        return !bench.apply(action::SetInstanceMetadata{metadata});
    };
    CHECK_FALSE(refused([](auto&) {}));
    CHECK(refused([](auto& m) { m.network_interfaces = {"eth9"}; }));
    CHECK(refused([](auto& m) { m.hop_limit = 0; }));
    CHECK(refused([](auto& m) { m.hop_limit = 65; }));
    CHECK(refused([](auto& m) { m.instance.instance_id = "x"; }));
    CHECK(refused([](auto& m) { m.instance.instance_id = "i-" + std::string(99, '0'); }));
    CHECK(refused([](auto& m) { m.instance.user_data = std::string(16385, 'x'); }));
    CHECK(refused([](auto& m) { m.instance.role = "r"; }));
    CHECK(refused([](auto& m) { m.instance.hostname = "a\nb"; }));
    for (const auto* id : {"", "12345678901", "1234567890123", "12345678901x", "123456 89012"}) {
        CAPTURE(id);
        CHECK(refused([&](auto& m) { m.instance.account_id = id; }));
    }
}

TEST_CASE("a guest network must hold together") {
    Bench bench;
    const auto refused = [&](const GuestNetworkConfig& network) {
        std::vector<Fd> others;
        auto interface = on_socket("eth0", others);
        interface.guest_network = network;
        const bool ok = bench.apply(action::SetNetworkInterface{interface});
        if (!ok)
            ::close(*interface.passt_fd);
        return !ok;
    };
    CHECK_FALSE(
        refused({.address = "172.31.0.10/20", .gateway = "172.31.0.1", .dns = {"1.1.1.1"}}));
    CHECK(refused({.address = "172.31.0.10"}));
    CHECK(refused({.address = "172.31.0.10/31"}));
    CHECK(refused({.address = "172.31.0.10/20", .gateway = "10.0.0.1"}));
    CHECK(refused({.address = "172.31.0.10/20", .local_gateway = true}));
    CHECK(refused({.address = "172.31.0.10/20", .dns = {"x"}}));
    CHECK(refused({.address = "172.31.0.10/20", .dns = {"::1", "::2", "::3", "::4"}}));
    CHECK(refused({.address = "172.31.0.10/20", .address6 = "10.0.0.1/8"}));
    CHECK(refused({.address = "172.31.0.10/20", .gateway6 = "fe80::1"}));
    CHECK(refused({.address = "172.31.0.10/20", .address6 = "fd00::1/64", .gateway6 = "fd00::2"}));
}

TEST_CASE("on a shared link the guest has its one address of the prefix, elsewhere all of it") {
    NetworkInterfaceConfig interface;
    interface.guest_network = GuestNetworkConfig{.address = "10.1.0.7/24",
                                                 .gateway = {},
                                                 .dns = {},
                                                 .address6 = "fd00:1::7/64",
                                                 .gateway6 = "fe80::1",
                                                 .local_gateway6 = true,
                                                 .hostname = {}};
    const net::MacAddress mac{6, 0, 0, 0, 0, 7};
    const auto alone = firewall_config(*service_config(interface, mac));
    CHECK(alone.delegated.size() == 1);
    interface.guest_network->shared_link = true;
    const auto shared = firewall_config(*service_config(interface, mac));
    CHECK(shared.delegated.empty());
    CHECK(shared.source_dest_check);
    CHECK(shared.addresses ==
          std::vector{*net::parse_address("10.1.0.7"), *net::parse_address("fd00:1::7")});
}

TEST_CASE("a snapshot needs a paused VM, and leaves it paused") {
    Bench bench;
    const SavedVm saved;
    make_savable(bench.record);
    CHECK(bench.refusal(saved.create()).contains("not possible before"));
    bench.start();
    CHECK(bench.refusal(saved.create()).contains("pause it first"));
    REQUIRE(bench.apply(action::Pause{}));
    CHECK(bench.apply(saved.create()));
    CHECK(bench.monitor.state() == VmState::Paused);
    CHECK(bench.record.count("save") == 1);
    CHECK(bench.apply(action::Resume{}));
}

TEST_CASE("a loaded snapshot brings its configuration, with the changes asked for") {
    const SavedVm saved;
    {
        Bench bench;
        make_savable(bench.record);
        bench.start();
        REQUIRE(bench.apply(action::Pause{}));
        REQUIRE(bench.refusal(saved.create()).empty());
    }
    Bench bench;
    auto load = saved.load();
    load.drives = {{.drive_id = "a", .path_on_host = {}, .overlay_path = "/overlay"}};
    load.clock_realtime = true;
    CHECK(bench.refusal(load).empty());
    CHECK(bench.monitor.state() == VmState::Paused);
    CHECK(bench.record.count("restore " + saved.folder + "/memory") == 1);
    CHECK(bench.record.count("start") == 0);
    CHECK(bench.record.clock == ClockPolicy::Realtime);
    REQUIRE(bench.record.config.drives.size() == 1);
    CHECK(bench.record.config.drives[0].path_on_host == "/a");
    CHECK(bench.record.config.drives[0].overlay_path == "/overlay");
    REQUIRE(bench.record.config.boot_source);
    CHECK(bench.apply(action::Resume{}));
    CHECK(bench.record.count("start") == 1);
    CHECK(bench.refusal(saved.load()).contains("after the instance has started"));
}

TEST_CASE("a load that fails leaves the monitor as it was") {
    const SavedVm saved;
    {
        Bench bench;
        make_savable(bench.record);
        bench.start();
        REQUIRE(bench.apply(action::Pause{}));
        REQUIRE(bench.apply(saved.create()));
    }
    Bench bench;
    auto load = saved.load();
    load.state_path = saved.folder + "/none";
    CHECK(bench.refusal(load).contains("/none"));
    load = saved.load();
    load.drives = {{.drive_id = "b", .path_on_host = "/x", .overlay_path = {}}};
    CHECK(bench.refusal(load).contains("no drive b"));
    bench.record.refuse_creation = true;
    CHECK(bench.refusal(saved.load()) == "no machine");
    bench.record.refuse_creation = false;
    bench.record.refuse_start = true;
    load = saved.load();
    load.resume = true;
    CHECK(bench.refusal(load) == "no start");
    CHECK(bench.record.alive == 0);
    bench.record.refuse_start = false;
    CHECK(bench.monitor.state() == VmState::NotStarted);
    CHECK(bench.apply(load));
    CHECK(bench.monitor.state() == VmState::Running);
}

namespace {

void start_without_disks(Bench& bench) {
    REQUIRE(bench.apply(action::SetBootSource{{.kernel_image_path = "/k"}}));
    REQUIRE(bench.apply(action::StartInstance{}));
}

// Changes a page of the guest's memory, and lets the log know.
void write_page(Record& record, std::size_t page, int value) {
    std::memset(record.ram.bytes().data() + page * guest_page, value, guest_page);
    record.written.add(page);
}

bool holds_memory(const std::string& directory, const kvm::GuestRam& ram) {
    const auto file = read_file(directory + "/memory", 128 * MiB);
    return file && std::ranges::equal(std::as_bytes(std::span(*file)), ram.bytes());
}

snapshot::SaveProgress progress_of(Monitor& monitor) {
    return std::get<snapshot::SaveProgress>(*monitor.apply(action::GetSaveProgress{}));
}

snapshot::SaveProgress wait_for_save(Bench& bench) {
    for (int turns = 0; turns < 10'000; ++turns) {
        if (progress_of(bench.monitor).state != snapshot::SaveState::Running)
            break;
        bench.loop->run_once(1);
    }
    return progress_of(bench.monitor);
}

// Whether the guest's packet passes, on its way out.
bool passes(Bench& bench, net::Direction direction = net::Direction::Egress) {
    using namespace net::fake;
    auto frame = udp_frame(4);
    if (direction == net::Direction::Ingress)  // the answer to it
        frame = ethernet(guest_mac, other_mac, net::ethertype_ipv4) +
                ipv4(net::protocol_udp, 0x0a000002, 0x0a000001, 8) + ports(2000, 1000) + be16(8) +
                be16(0);
    auto* firewall = bench.record.context->network.find("eth0")->firewall();
    REQUIRE(firewall != nullptr);
    return firewall
               ->judge(direction, {frame, static_cast<std::uint32_t>(frame.size())},
                       bench.clock.now())
               .action == net::Action::Pass;
}

action::SetSecurityGroups egress_only() {
    net::RuleSet rules;
    rules.rules = {
        {.id = "out", .direction = net::Direction::Egress, .peer = *net::parse_cidr("0.0.0.0/0")}};
    return {.iface_id = "eth0", .groups = {"sg-1"}, .rules = *net::compile(rules, {})};
}

// A machine with an interface, metadata, and a connection that its firewall knows, saved.
void save_networked(const SavedVm& saved) {
    Bench bench;
    make_savable(bench.record);
    std::vector<Fd> others;
    auto interface = on_socket("eth0", others);
    interface.guest_mac = "06:00:00:00:00:01";
    interface.guest_network = {.address = "10.0.0.1/24", .hostname = "web"};
    REQUIRE(bench.apply(action::SetNetworkInterface{interface}));
    InstanceMetadataConfig metadata{.network_interfaces = {"eth0"}};
    metadata.instance.instance_id = "i-1";
    metadata.instance.hostname = "web";
    metadata.instance.user_data = "secret";
    metadata.instance.tags = {{"team", "a"}};
    metadata.instance.public_keys = {{.name = "k", .key = "ssh-ed25519 AAAA"}};
    metadata.instance.role = "r";
    metadata.instance.role_credentials = "{}";
    REQUIRE(bench.apply(action::SetInstanceMetadata{metadata}));
    REQUIRE(bench.apply(egress_only()));
    bench.start();
    REQUIRE(passes(bench));
    REQUIRE(bench.apply(action::Pause{}));
    REQUIRE(bench.refusal(saved.create()).empty());
}

action::LoadSnapshot load_onto(const SavedVm& saved, std::vector<Fd>& others) {
    auto load = saved.load();
    load.interfaces = {{.iface_id = "eth0",
                        .host_dev_name = {},
                        .tap_fds = {},
                        .passt_fd = on_socket("eth0", others).passt_fd,
                        .network_mac = {},
                        .guest_network = {}}};
    return load;
}

}  // namespace

TEST_CASE("a differential save builds on the one before, or says why there is none") {
    const SavedVm saved;
    Bench bench;
    make_savable(bench.record);
    REQUIRE(bench.apply(action::SetMachineConfig{{.mem_size_mib = 64, .track_dirty_pages = true}}));
    start_without_disks(bench);
    REQUIRE(bench.monitor.apply(action::Pause{}));
    const auto create = [&](const char* name, bool diff, bool own = false) {
        return action::CreateSnapshot{
            .directory = saved.folder + "/" + name, .diff = diff, .own_pages = own};
    };
    CHECK(bench.refusal(create("x", true, true)).contains("save it whole first"));
    write_page(bench.record, 1, 1);
    REQUIRE(bench.refusal(create("first", true)).empty());
    CHECK(progress_of(bench.monitor).form == snapshot::MemoryForm::Whole);
    write_page(bench.record, 2, 2);
    REQUIRE(bench.refusal(create("second", true)).empty());
    CHECK(progress_of(bench.monitor).form == snapshot::MemoryForm::OnBase);
    CHECK(progress_of(bench.monitor).memory_written == guest_page);
    CHECK(holds_memory(saved.folder + "/second", bench.record.ram));
    // One that fails forgets nothing.
    write_page(bench.record, 3, 3);
    CHECK(bench.refusal(create("second", true)).contains("exists already"));
    write_page(bench.record, 1, 0);
    REQUIRE(bench.refusal(create("own", true, true)).empty());
    CHECK(progress_of(bench.monitor).memory_written == 2 * guest_page);
    CHECK_FALSE(std::filesystem::exists(saved.folder + "/own/memory"));
    write_page(bench.record, 4, 4);
    REQUIRE(bench.refusal(create("third", true)).empty());
    CHECK(progress_of(bench.monitor).memory_written == 2 * guest_page);
    CHECK(holds_memory(saved.folder + "/third", bench.record.ram));
    // Two files hold the difference to the snapshot before, and nothing of theirs is a base.
    write_page(bench.record, 5, 5);
    auto files = saved.create();
    files.diff = true;
    REQUIRE(bench.refusal(files).empty());
    CHECK(progress_of(bench.monitor).memory_written == guest_page);
    REQUIRE(bench.refusal(create("whole", true)).empty());
    CHECK(progress_of(bench.monitor).form == snapshot::MemoryForm::Whole);
    Bench other;
    const auto load = action::LoadSnapshot{.directory = saved.folder + "/own",
                                           .state_path = saved.folder + "/own/state",
                                           .memory_path = saved.folder + "/own/memory"};
    CHECK(other.refusal(load).contains("masu snapshot collapse"));
}

TEST_CASE("what can be judged before a load is refused when it is prepared") {
    const SavedVm saved;
    const auto prepare = action::PrepareLoad{saved.load()};
    Bench bench;
    CHECK(bench.refusal(prepare).contains(saved.folder + "/state"));
    make_savable(bench.record);
    start_without_disks(bench);
    REQUIRE(bench.apply(action::Pause{}));
    REQUIRE(bench.refusal(saved.create()).empty());
    CHECK(bench.refusal(prepare).contains("not possible after the instance has started"));
    Bench other;
    other.record.refuse_creation = true;
    CHECK(other.refusal(prepare) == "no machine");
    other.record.refuse_creation = false;
    REQUIRE(other.refusal(saved.load()).empty());
    CHECK(other.record.calls.back() == "restore state");
}

namespace {

bool listens(const std::string& path) {
    return connect_unix_now(path).has_value();
}

// A snapshot of a VM with a drive, an interface and a vsock, as a directory.
struct SavedClone {
    SavedVm saved;
    std::string directory = saved.folder + "/clone";
    std::vector<Fd> others;
    SavedClone() {
        write(saved.folder + "/disk", std::string(MiB, 'd'));
        Bench bench;
        make_savable(bench.record);
        REQUIRE(bench.apply(action::SetNetworkInterface{on_socket("eth0", others)}));
        REQUIRE(bench.apply(action::SetVsock{{.uds_path = saved.folder + "/first"}}));
        REQUIRE(bench.apply(action::SetBootSource{{.kernel_image_path = "/k"}}));
        REQUIRE(bench.apply(
            action::SetDrive{{.drive_id = "a", .path_on_host = saved.folder + "/disk"}}));
        REQUIRE(bench.apply(action::StartInstance{}));
        REQUIRE(bench.apply(action::Pause{}));
        REQUIRE(bench.refusal(action::CreateSnapshot{.directory = directory}).empty());
        std::filesystem::create_directory(saved.folder + "/own");
    }
    static void write(const std::string& path, const std::string& text) {
        REQUIRE(write_file_atomically(path, text));
    }
    [[nodiscard]] action::LoadSnapshot load(const char* vsock = "/copy") {
        action::LoadSnapshot load{.directory = directory,
                                  .state_path = directory + "/state",
                                  .memory_path = directory + "/memory"};
        load.interfaces = load_onto(saved, others).interfaces;
        load.overlay_folder = saved.folder + "/own";
        load.uds_path = saved.folder + vsock;
        return load;
    }
    [[nodiscard]] bool vsock_listens(const char* vsock = "/copy") const {
        return listens(saved.folder + vsock);
    }
    [[nodiscard]] long overlays() const {
        return std::distance(std::filesystem::directory_iterator(saved.folder + "/own"), {});
    }
};

}  // namespace

TEST_CASE("a load takes the machine that was prepared for it, which nobody saw before") {
    SavedClone clone;
    auto load = clone.load();
    Bench bench;
    REQUIRE(bench.refusal(action::PrepareLoad{load}).empty());
    CHECK(bench.record.calls == std::vector<std::string>{"restore " + load.memory_path});
    CHECK(clone.vsock_listens());
    CHECK(bench.state() == VmState::NotStarted);
    const auto full = std::get<FullConfig>(*bench.monitor.apply(action::GetVmConfig{}));
    CHECK(full.vm.drives.empty());
    CHECK(bench.refusal(action::GetFirewall{"eth0"}).contains("eth0"));
    load.resume = true;  // is no other machine
    REQUIRE(bench.refusal(load).empty());
    CHECK(bench.record.calls ==
          std::vector<std::string>{"restore " + load.memory_path, "restore state", "start"});
    CHECK(bench.state() == VmState::Running);
    CHECK(bench.record.config.drives[0].overlay_path == clone.saved.folder + "/own/a.overlay");
    CHECK(std::get<FullConfig>(*bench.monitor.apply(action::GetVmConfig{})).vm.drives.size() == 1);
    CHECK(bench.apply(egress_only()));
    CHECK(clone.vsock_listens());
}

TEST_CASE("a load that asks for something else gets that, and of what was prepared nothing stays") {
    SavedClone clone;
    const auto prepared = clone.load();
    Bench bench;
    REQUIRE(bench.refusal(action::PrepareLoad{prepared}).empty());
    auto load = prepared;  // the interface's descriptor is the same
    load.uds_path = clone.saved.folder + "/another";
    REQUIRE(bench.refusal(load).empty());
    CHECK(bench.record.alive == 1);
    CHECK(bench.record.count("restore " + load.memory_path) == 2);
    CHECK_FALSE(clone.vsock_listens());
    CHECK(clone.vsock_listens("/another"));
}

TEST_CASE("what was prepared of a snapshot that has been replaced is made anew") {
    SavedClone clone;
    const auto load = clone.load();
    Bench bench;
    REQUIRE(bench.refusal(action::PrepareLoad{load}).empty());
    SavedClone::write(load.state_path, *read_file(load.state_path, MiB));
    REQUIRE(bench.refusal(load).empty());
    CHECK(bench.record.count("restore " + load.memory_path) == 2);
    CHECK(bench.record.alive == 1);
}

TEST_CASE("a machine that was prepared and is not loaded leaves nothing behind") {
    SavedClone clone;
    const auto load = clone.load();
    const auto expect_nothing = [&](const Bench& bench) {
        CHECK(bench.record.alive == 0);
        CHECK_FALSE(std::filesystem::exists(clone.saved.folder + "/copy"));
        CHECK(clone.overlays() == 0);
    };
    {
        Bench bench;
        REQUIRE(bench.refusal(action::PrepareLoad{load}).empty());
        // Opening the drive makes it, which the fake machine does not.
        SavedClone::write(clone.saved.folder + "/own/a.overlay", "overlay");
        SUBCASE("the monitor is stopped") {
            REQUIRE(bench.apply(action::Stop{}));
        }
        SUBCASE("the monitor is configured") {
            REQUIRE(bench.apply(action::SetEntropy{}));
        }
        SUBCASE("another document of metadata comes") {
            REQUIRE(bench.apply(action::PutMmds{"{}"}));
        }
        SUBCASE("another load cannot be prepared") {
            auto other = load;
            other.drives = {{.drive_id = "b", .path_on_host = "/x", .overlay_path = {}}};
            CHECK(bench.refusal(action::PrepareLoad{other}).contains("no drive b"));
        }
        SUBCASE("the load fails") {
            bench.record.refuse_state = true;
            CHECK(bench.refusal(load) == "no memory");
            CHECK(bench.state() == VmState::NotStarted);
        }
        expect_nothing(bench);
        // Its descriptor is there for another.
        REQUIRE(::fcntl(*load.interfaces[0].passt_fd, F_GETFD) == 0);
    }
    Bench bench;
    REQUIRE(bench.refusal(action::PrepareLoad{load}).empty());
    SavedClone::write(clone.saved.folder + "/own/a.overlay", "overlay");
    REQUIRE(bench.refusal(load).empty());
    CHECK(clone.overlays() == 1);
    CHECK(bench.record.alive == 1);
}

TEST_CASE("a file that was there is no clone's, and stays when the load is refused") {
    SavedClone clone;
    SavedClone::write(clone.saved.folder + "/own/a.overlay", "another's");
    Bench bench;
    CHECK(bench.refusal(clone.load()).contains("is there already"));
    CHECK(clone.overlays() == 1);
}

TEST_CASE("a working set is recorded once, and used from then on") {
    const SavedVm saved;
    const auto directory = saved.folder + "/warm";
    {
        Bench bench;
        make_savable(bench.record);
        start_without_disks(bench);
        REQUIRE(bench.apply(action::Pause{}));
        REQUIRE(bench.refusal(action::CreateSnapshot{.directory = directory}).empty());
    }
    action::LoadSnapshot load{.directory = directory,
                              .state_path = directory + "/state",
                              .memory_path = directory + "/memory",
                              .resume = true,
                              .record_working_set_ms = 1000};
    {
        Bench bench;
        make_savable(bench.record);
        REQUIRE(bench.refusal(load).empty());
        CHECK_FALSE(bench.record.working_set);
        CHECK_FALSE(std::filesystem::exists(directory + "/working-set"));
        REQUIRE(bench.refusal(action::EndWorkingSet{}).empty());
        CHECK(std::filesystem::exists(directory + "/working-set"));
        CHECK(bench.refusal(action::EndWorkingSet{}).contains("no working set"));
        std::filesystem::remove(directory + "/working-set");
    }
    for (const bool guest_says_so : {false, true}) {
        Bench bench;
        make_savable(bench.record);
        REQUIRE(bench.refusal(load).empty());
        if (guest_says_so)
            bench.boot_timer.mark(Milestone::Init);
        else
            bench.clock.time += 1'000'000'000;
        for (int turns = 0; turns < 1000; ++turns) {
            bench.loop->run_once(1);
            if (std::filesystem::exists(directory + "/working-set"))
                break;
        }
        CHECK(std::filesystem::exists(directory + "/working-set"));
        if (!guest_says_so)
            std::filesystem::remove(directory + "/working-set");
    }
    load.record_working_set_ms.reset();
    {
        Bench bench;
        REQUIRE(bench.refusal(load).empty());
        CHECK(bench.record.working_set);
    }
    load.use_working_set = false;
    {
        Bench bench;
        REQUIRE(bench.refusal(load).empty());
        CHECK_FALSE(bench.record.working_set);
    }
    load.use_working_set = true;
    REQUIRE(write_file_atomically(directory + "/working-set", "MASUPAGE, but nothing else"));
    Bench bench;
    REQUIRE(bench.refusal(load).empty());
    CHECK_FALSE(bench.record.working_set);
}

TEST_CASE("a live save stops the guest for its end only, and holds what was written until then") {
    const SavedVm saved;
    Bench bench;
    make_savable(bench.record);
    start_without_disks(bench);
    write_page(bench.record, 7, 7);
    const action::CreateSnapshot live{.directory = saved.folder + "/live", .live = true};
    REQUIRE(bench.refusal(live).empty());
    CHECK(bench.record.count("log") == 1);
    CHECK(bench.refusal(live).contains("being made"));
    write_page(bench.record, 8, 8);
    const auto progress = wait_for_save(bench);
    CHECK_MESSAGE(progress.state == snapshot::SaveState::Done, progress.error);
    CHECK(progress.live);
    CHECK(bench.monitor.state() == VmState::Running);
    CHECK(bench.record.count("pause") == 1);
    CHECK(bench.record.count("resume") == 1);
    CHECK(bench.record.count("no log") == 1);
    CHECK(holds_memory(saved.folder + "/live", bench.record.ram));
    CHECK(snapshot::load_state(saved.folder + "/live/state"));

    // Refused in the middle, the guest goes on.
    REQUIRE(bench.refusal(live).empty());
    const auto failed = wait_for_save(bench);
    CHECK(failed.state == snapshot::SaveState::Failed);
    CHECK(failed.error.contains("exists already"));
    CHECK(bench.monitor.state() == VmState::Running);

    // A VM that ends takes its save along.
    const action::CreateSnapshot cut{.directory = saved.folder + "/cut", .live = true};
    REQUIRE(bench.refusal(cut).empty());
    bench.monitor.stop("enough");
    CHECK(bench.record.alive == 0);
    CHECK_FALSE(std::filesystem::exists(saved.folder + "/cut"));
    for (const auto& entry : std::filesystem::directory_iterator(saved.folder))
        CHECK_FALSE(entry.path().string().contains("partial"));
}

TEST_CASE("a restored interface has its flows, and passes nothing before it has rules") {
    const SavedVm saved;
    save_networked(saved);
    Bench bench;
    std::vector<Fd> others;
    REQUIRE(bench.refusal(load_onto(saved, others)).empty());
    CHECK(bench.record.readdressed.empty());
    const auto& config = bench.record.config;
    REQUIRE(config.network_interfaces.size() == 1);
    CHECK(config.network_interfaces[0].guest_mac == "06:00:00:00:00:01");
    REQUIRE(config.metadata);
    CHECK(config.metadata->instance.instance_id == "i-1");
    CHECK(config.metadata->instance.user_data == "secret");
    CHECK(config.metadata->instance.tags.at("team") == "a");
    CHECK(config.metadata->instance.public_keys.at(0).key == "ssh-ed25519 AAAA");
    CHECK(config.metadata->instance.role_credentials == "{}");
    const auto shown = std::get<FullConfig>(*bench.monitor.apply(action::GetVmConfig{}));
    CHECK_FALSE(shown.secrets);
    CHECK_FALSE(passes(bench));
    CHECK_FALSE(passes(bench, net::Direction::Ingress));
    REQUIRE(bench.apply(egress_only()));
    CHECK(passes(bench, net::Direction::Ingress));
}

TEST_CASE("another machine has another name, and none of the old one's connections") {
    const SavedVm saved;
    save_networked(saved);
    Bench bench;
    std::vector<Fd> others;
    auto load = load_onto(saved, others);
    load.identity = {.instance_id = "i-2", .hostname = "clone"};
    REQUIRE(bench.refusal(load).empty());
    const auto& config = bench.record.config;
    CHECK(config.metadata->instance.instance_id == "i-2");
    CHECK(config.metadata->instance.user_data == "secret");
    CHECK(config.network_interfaces[0].guest_network->hostname == "clone");
    REQUIRE(bench.apply(egress_only()));
    CHECK_FALSE(passes(bench, net::Direction::Ingress));
    CHECK(passes(bench));
    CHECK(passes(bench, net::Direction::Ingress));
}

TEST_CASE("a guest keeps its MAC; another machine is known by one of its own, and stays so") {
    const SavedVm saved;
    save_networked(saved);
    std::vector<Fd> others;
    const auto loaded = [&](const action::LoadSnapshot& load,
                            const SavedVm* again = nullptr) -> NetworkInterfaceConfig {
        Bench bench;
        make_savable(bench.record);
        REQUIRE(bench.refusal(load).empty());
        auto interface = bench.record.config.network_interfaces[0];
        CHECK(interface.guest_mac == "06:00:00:00:00:01");
        if (again != nullptr)
            REQUIRE(bench.refusal(again->create()).empty());
        return interface;
    };
    auto load = load_onto(saved, others);
    CHECK_FALSE(loaded(load).network_mac);

    // From one instance id always the same, from another another.
    std::vector<std::string> made;
    for (const auto* id : {"i-2", "i-2", "i-3"}) {
        load = load_onto(saved, others);
        load.identity = {.instance_id = id, .hostname = "clone"};
        const auto mac = loaded(load).network_mac;
        REQUIRE(mac);
        CHECK(mac->starts_with("06:"));
        made.push_back(*mac);
    }
    CHECK(made[0] == made[1]);
    CHECK(made[0] != made[2]);

    // Saved again, both go along; a copy of the copy is again another.
    const SavedVm second;
    load = load_onto(saved, others);
    load.identity = {.instance_id = "i-2", .hostname = "clone"};
    load.interfaces[0].network_mac = "06:00:00:00:00:09";
    CHECK(loaded(load, &second).network_mac == "06:00:00:00:00:09");
    load = load_onto(second, others);
    CHECK(loaded(load).network_mac == "06:00:00:00:00:09");
    load = load_onto(second, others);
    load.identity = {.instance_id = "i-3", .hostname = "clone"};
    CHECK(loaded(load).network_mac == made[2]);
    load = load_onto(second, others);
    load.interfaces[0].network_mac = "06:00:00:00:00:01";  // the first one's, and the guest's
    CHECK_FALSE(loaded(load).network_mac);
}

TEST_CASE("a guest with another address is told so, and leaves its connections behind") {
    const SavedVm saved;
    save_networked(saved);
    Bench bench;
    std::vector<Fd> others;
    auto load = load_onto(saved, others);
    SUBCASE("another") {
        load.interfaces[0].guest_network = {.address = "10.0.0.9/24", .hostname = "web"};
        REQUIRE(bench.refusal(load).empty());
        CHECK(bench.record.readdressed == std::vector<std::string>{"eth0"});
        REQUIRE(bench.apply(egress_only()));
        CHECK_FALSE(passes(bench, net::Direction::Ingress));
        CHECK_FALSE(passes(bench));  // from the old address
    }
    SUBCASE("the same, said again") {
        load.interfaces[0].guest_network = {.address = "10.0.0.1/24", .hostname = "web"};
        REQUIRE(bench.refusal(load).empty());
        CHECK(bench.record.readdressed.empty());
    }
}

TEST_CASE(
    "a load that does not say what an interface is attached to is refused, and may be repeated") {
    const SavedVm saved;
    save_networked(saved);
    Bench bench;
    std::vector<Fd> others;
    CHECK(bench.refusal(saved.load()).contains("network_overrides"));
    auto load = load_onto(saved, others);
    load.interfaces[0].iface_id = "eth7";
    CHECK(bench.refusal(load).contains("no network interface eth7"));
    load.interfaces[0].iface_id = "eth0";
    load.interfaces.push_back(load.interfaces[0]);
    CHECK(bench.refusal(load).contains("twice"));
    load.interfaces.pop_back();
    bench.record.refuse_creation = true;
    CHECK(bench.refusal(load) == "no machine");
    bench.record.refuse_creation = false;
    CHECK(bench.refusal(load_onto(saved, others)).empty());
    Bench busy;
    REQUIRE(busy.apply(action::SetNetworkInterface{on_socket("eth0", others)}));
    CHECK(busy.refusal(load_onto(saved, others)).contains("into a monitor that has none"));
}

TEST_CASE("the metadata document is saved, and one that is there already is kept") {
    const SavedVm saved;
    std::vector<Fd> others;
    {
        Bench bench;
        make_savable(bench.record);
        REQUIRE(bench.apply(action::SetNetworkInterface{on_socket("eth0", others)}));
        REQUIRE(bench.apply(action::SetMmdsConfig{{.network_interfaces = {"eth0"}}}));
        REQUIRE(bench.apply(action::PutMmds{R"({"a":1})"}));
        bench.start();
        REQUIRE(bench.apply(action::Pause{}));
        REQUIRE(bench.refusal(saved.create()).empty());
    }
    Bench bench;
    std::string expected = R"({"a":1})";
    SUBCASE("saved") {}
    SUBCASE("there already") {
        expected = R"({"b":2})";
        REQUIRE(bench.apply(action::PutMmds{expected}));
    }
    REQUIRE(bench.refusal(load_onto(saved, others)).empty());
    CHECK(std::get<JsonText>(*bench.monitor.apply(action::GetMmds{})).text == expected);
}

TEST_CASE("a vsock's socket is there from its PUT on, over a reboot, and no longer than the VM") {
    const SavedVm folder;  // for its folder
    const auto path = folder.folder + "/v";
    {
        Bench bench;
        CHECK(bench.refusal(action::SetVsock{{.guest_cid = 2, .uds_path = path}})
                  .contains("guest_cid is 2"));
        CHECK(bench.refusal(action::SetVsock{{.guest_cid = 0xffff'ffff, .uds_path = path}})
                  .contains("guest_cid"));
        CHECK(bench.refusal(action::SetVsock{{.uds_path = std::string(97, 'a')}})
                  .contains("97 bytes"));
        CHECK(bench.refusal(action::SetVsock{{.uds_path = folder.folder + "/no/v"}})
                  .contains("vsock"));
        REQUIRE(bench.refusal(action::SetVsock{{.guest_cid = 5, .uds_path = path}}).empty());
        CHECK(listens(path));
        // Again, at another path and back.
        REQUIRE(bench.refusal(action::SetVsock{{.uds_path = path + "2"}}).empty());
        CHECK_FALSE(listens(path));
        REQUIRE(bench.refusal(action::SetVsock{{.guest_cid = 6, .uds_path = path}}).empty());
        REQUIRE(bench.refusal(action::SetVsock{{.guest_cid = 7, .uds_path = path}}).empty());
        CHECK_FALSE(listens(path + "2"));
        Bench other;
        CHECK(
            other.refusal(action::SetVsock{{.uds_path = path}}).contains("another process serves"));
        bench.start();
        CHECK(bench.record.config.vsock->guest_cid == 7);
        CHECK(bench.record.context->vsock != nullptr);
        bench.pass(60);
        bench.stop(StopKind::Reset);
        CHECK(bench.record.count("create") == 2);
        CHECK(listens(path));
        CHECK_FALSE(bench.apply(action::SetVsock{{.uds_path = path}}));
    }
    CHECK_FALSE(std::filesystem::exists(path));
}

TEST_CASE("a restored VM's vsock is at its own path") {
    const SavedVm saved;
    const auto path = saved.folder + "/v";
    Bench first;
    make_savable(first.record);
    REQUIRE(first.refusal(action::SetVsock{{.guest_cid = 5, .uds_path = path}}).empty());
    first.start();
    REQUIRE(first.apply(action::Pause{}));
    REQUIRE(first.refusal(saved.create()).empty());
    auto load = saved.load();
    {
        Bench bench;
        CHECK(bench.refusal(load).contains("another process serves"));
        load.uds_path = saved.folder + "/copy";
        bench.record.refuse_creation = true;
        CHECK_FALSE(bench.refusal(load).empty());
        CHECK_FALSE(listens(saved.folder + "/copy"));
        bench.record.refuse_creation = false;
        REQUIRE(bench.refusal(load).empty());
        CHECK(bench.record.config.vsock->guest_cid == 5);
        CHECK(bench.record.config.vsock->uds_path == saved.folder + "/copy");
        CHECK(listens(saved.folder + "/copy"));
    }
    CHECK(listens(path));
    Bench busy;
    REQUIRE(busy.apply(action::SetVsock{{.uds_path = saved.folder + "/other"}}));
    CHECK(busy.refusal(load).contains("into a monitor that has none"));
}

TEST_CASE("a vsock is moved only where there is one") {
    const SavedVm saved;
    Bench first;
    make_savable(first.record);
    first.start();
    REQUIRE(first.apply(action::Pause{}));
    REQUIRE(first.refusal(saved.create()).empty());
    auto load = saved.load();
    load.uds_path = saved.folder + "/v";
    Bench bench;
    CHECK(bench.refusal(load).contains("has no vsock"));
}
