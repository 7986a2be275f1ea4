#include "tests/kvm/whole_machine.hpp"

#include <doctest/doctest.h>

namespace masu::test {

Ended run_machine(const VmConfig& config, Nanoseconds patience, const Typing& typing) {
    auto loop = std::move(*EventLoop::create());
    const SystemClock clock;
    Metrics metrics;
    BootTimer timer(clock, clock.now());
    Network network(0);
    Ended result;
    Machine* machine = nullptr;
    std::string to_type = typing.type;
    auto made = Machine::create(
        config, {.loop = *loop,
                 .log = Log::to_stderr(LogLevel::Warn),
                 .metrics = metrics,
                 .boot_timer = timer,
                 .network = network,
                 .console_output =
                     [&](std::span<const std::byte> bytes) {
                         for (const auto byte : bytes)
                             result.console += static_cast<char>(byte);
                         if (!to_type.empty() &&
                             result.console.find(typing.wait_for) != std::string::npos) {
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
    auto end = loop->timer([&] { loop->stop(); });
    REQUIRE(end);
    end->arm(patience);
    REQUIRE((*made)->start());
    loop->run();
    result.entry = timer.since_start(Milestone::FirmwareEntry).has_value();
    result.loader = timer.since_start(Milestone::LoaderStarted).has_value();
    result.handover = timer.since_start(Milestone::KernelHandover).has_value();
    return result;
}

}  // namespace masu::test
