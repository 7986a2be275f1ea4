// A machine without KVM that notes what the monitor asks of it, and a clock that tests move.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "base/bytes.hpp"
#include "base/clock.hpp"
#include "vmm/machine.hpp"

namespace masu::fake {

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

}  // namespace masu::fake
