#include "tests/kvm/clone_template.hpp"

#include <fcntl.h>
#include <sys/socket.h>

#include <chrono>
#include <cstring>
#include <stdexcept>

#include "tests/kvm/payloads.hpp"
#include "vmm/monitor.hpp"

namespace masu::test {
namespace {

constexpr auto patience = std::chrono::seconds(10);
constexpr std::size_t id_offset = 4 + 14;  // behind the stream's length and the Ethernet header

template <class T>
T require(Result<T> result) {
    if (!result)
        throw std::runtime_error(result.error().message);
    if constexpr (!std::is_void_v<T>)
        return std::move(*result);
}

std::pair<Fd, Fd> socket_pair(int flags) {
    int pair[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | flags, 0, pair) < 0)
        throw std::runtime_error("cannot make sockets");
    return {Fd(pair[0]), Fd(pair[1])};
}

}  // namespace

CloneTemplate::CloneTemplate() : files_(clone_payload()), path_(files_.folder() / "snapshot") {
    const auto loop = require(EventLoop::create());
    const SystemClock clock;
    Metrics metrics;
    BootTimer timer(clock, clock.now());
    const auto console = require(Console::create(*loop, Log()));
    VmConfig initial;
    initial.transport = Transport::Mmio;
    Monitor monitor({.loop = *loop,
                     .clock = clock,
                     .metrics = metrics,
                     .boot_timer = timer,
                     .console = *console,
                     .create_machine = Machine::create,
                     .restore_machine = {},
                     .ended = [](const MonitorExit&) {}},
                    Log(), initial, false);
    const auto apply = [&](const VmmAction& action) { require(monitor.apply(action)); };
    // The interface takes its descriptor for an inherited one.
    auto [ours, theirs] = socket_pair(0);
    apply(action::SetMachineConfig{files_.config().machine});
    apply(action::SetBootSource{*files_.config().boot_source});
    auto drive = files_.config().drives.front();
    drive.is_read_only = false;
    apply(action::SetDrive{drive});
    apply(action::SetNetworkInterface{{.iface_id = "eth0", .passt_fd = theirs.release()}});
    apply(action::SetVsock{{.uds_path = files_.folder() / "vsock"}});
    apply(action::StartInstance{});
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (!timer.since_start(Milestone::Init)) {
        if (std::chrono::steady_clock::now() > deadline)
            throw std::runtime_error("the guest of the template does not come up");
        loop->run_once(1);
    }
    apply(action::Pause{});
    apply(action::CreateSnapshot{.directory = path_});
}

std::string CloneTemplate::load(int network_fd) const {
    return fmt::format(R"({{"directory": "{}", "network_overrides": [)"
                       R"({{"iface_id": "eth0", "passt_fd": {}}}], )"
                       R"("vsock_override": {{"uds_path": "{{folder}}/vsock"}}}})",
                       path_, network_fd);
}

GenerationId id_in_frame(std::span<const std::byte, clone_frame_size> frame) {
    GenerationId id{};
    std::memcpy(id.data(), frame.data() + id_offset, id.size());
    return id;
}

pool::WorkerDescriptors CloneNetworks::maker() {
    return [this](const pool::VmNames& names) -> Result<std::vector<Fd>> {
        auto [ours, theirs] = socket_pair(SOCK_CLOEXEC);
        sockets_[names.id] = std::move(ours);
        std::vector<Fd> descriptors;
        descriptors.push_back(std::move(theirs));
        return descriptors;
    };
}

}  // namespace masu::test
