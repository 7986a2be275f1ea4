// A monitor on a fake machine, and what tests give it: a socket, rules, a saved VM to load.
#pragma once

#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "devices/net/firewall/compiled_rules.hpp"
#include "tests/unit/vmm/fake_machine.hpp"
#include "vmm/monitor.hpp"
#include "vmm/unix_listener.hpp"

namespace masu::fake {

// A monitor whose machines are fake: `record` has what it asked of them, `exits` how it ended.
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

inline void start_without_disks(Bench& bench) {
    REQUIRE(bench.apply(action::SetBootSource{{.kernel_image_path = "/k"}}));
    REQUIRE(bench.apply(action::StartInstance{}));
}

// An interface on a socket as passt's, whose descriptor the monitor may take once.
inline NetworkInterfaceConfig on_socket(std::string id, std::vector<Fd>& others) {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    others.emplace_back(ends[1]);
    return {.iface_id = std::move(id), .passt_fd = ends[0]};
}

// Lets the guest send all over IPv4, and receive only the answers.
inline action::SetSecurityGroups egress_only() {
    net::RuleSet rules;
    rules.rules = {
        {.id = "out", .direction = net::Direction::Egress, .peer = *net::parse_cidr("0.0.0.0/0")}};
    return {.iface_id = "eth0", .groups = {"sg-1"}, .rules = *net::compile(rules, {})};
}

inline bool listens(const std::string& path) {
    return connect_unix_now(path).has_value();
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

inline void make_savable(Record& record) {
    record.state.memory_bytes = record.ram.size();
    record.state.vcpus.resize(1);
}

inline void pause_and_save(Bench& bench, const SavedVm& saved) {
    REQUIRE(bench.apply(action::Pause{}));
    REQUIRE(bench.refusal(saved.create()).empty());
}

// A load of `saved`, its interface on another socket.
inline action::LoadSnapshot load_onto(const SavedVm& saved, std::vector<Fd>& others) {
    auto load = saved.load();
    load.interfaces = {{.iface_id = "eth0",
                        .host_dev_name = {},
                        .tap_fds = {},
                        .passt_fd = on_socket("eth0", others).passt_fd,
                        .network_mac = {},
                        .guest_network = {}}};
    return load;
}

}  // namespace masu::fake
