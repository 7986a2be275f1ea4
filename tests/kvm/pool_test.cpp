// Pools of real monitors: the forks, the loads, the launches and the ends.
#include <doctest/doctest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <set>

#include "tests/kvm/clone_template.hpp"
#include "vmm/pool/fork_server.hpp"

using namespace masu;
using namespace masu::test;
using namespace masu::pool;

namespace {

constexpr auto patience = std::chrono::seconds(60);
constexpr int first_worker_descriptor = 4;

struct Rig {
    CloneTemplate from;
    std::unique_ptr<EventLoop> loop = *EventLoop::create();
    std::unique_ptr<ForkServer> host;
    CloneNetworks networks;
    std::unique_ptr<Pool> pool;

    explicit Rig(unsigned size, Level level = Level::Loaded) {
        auto started = ForkServer::start(*loop, MASU_VMM);
        REQUIRE_MESSAGE(started, started.error().message);
        host = *std::move(started);
        PoolSettings settings{.size = size,
                              .level = level,
                              .folder = from.folder() / "pool",
                              .load = from.load(first_worker_descriptor)};
        auto made = Pool::create(*loop, *host, settings, Log(), networks.maker());
        REQUIRE_MESSAGE(made, made.error().message);
        pool = *std::move(made);
    }
    template <class Condition>
    bool turn_until(Condition condition) {
        const auto end = std::chrono::steady_clock::now() + patience;
        while (!condition()) {
            if (std::chrono::steady_clock::now() > end)
                return false;
            loop->run_once(10);
        }
        return true;
    }
    std::vector<PooledVm> launch(unsigned count) {
        std::vector<PooledVm> vms;
        for (unsigned i = 0; i < count; ++i)
            pool->launch({}, [&](Result<PooledVm> vm) {
                REQUIRE_MESSAGE(vm, vm.error().message);
                vms.push_back(*std::move(vm));
            });
        REQUIRE(turn_until([&] { return vms.size() == count; }));
        return vms;
    }
    GenerationId reply_of(const PooledVm& vm) {
        std::array<std::byte, clone_frame_size> frame{};
        const auto& socket = networks.of(vm.names.id);
        pollfd polled{socket.get(), POLLIN, 0};
        REQUIRE(turn_until([&] { return ::poll(&polled, 1, 0) == 1; }));
        REQUIRE(::recv(socket.get(), frame.data(), frame.size(), MSG_WAITALL) ==
                static_cast<ssize_t>(frame.size()));
        return id_in_frame(frame);
    }
};

bool is_running(pid_t pid) {
    std::ifstream file(fmt::format("/proc/{}/stat", pid));
    std::string text;
    std::getline(file, text);
    const auto end = text.rfind(')');
    return end != std::string::npos && text.size() > end + 2 && text[end + 2] != 'Z';
}

std::size_t open_descriptors() {
    return static_cast<std::size_t>(
        std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}));
}

}  // namespace

TEST_CASE("a hundred launches of a pool are a hundred machines, and leave nothing behind") {
    std::set<GenerationId> ids;
    std::set<std::string> instances;
    std::vector<pid_t> pids;
    const auto before = open_descriptors();
    {
        Rig rig(8);
        while (ids.size() < 100) {
            for (const auto& vm : rig.launch(10)) {
                ids.insert(rig.reply_of(vm));
                instances.insert(vm.names.instance_id);
                pids.push_back(vm.pid);
                CHECK(std::filesystem::exists(vm.names.folder + "/disk.overlay"));
                REQUIRE(rig.pool->end_vm(vm.names.id));
                rig.networks.forget(vm.names.id);
            }
            REQUIRE(pids.size() == ids.size());
        }
        CHECK(instances.size() == 100);
        bool ended = false;
        rig.pool->end([&] { ended = true; });
        CHECK(rig.turn_until([&] { return ended; }));
        CHECK(rig.pool->vms().empty());
    }
    CHECK(open_descriptors() == before);
    for (const auto pid : pids)
        CHECK_FALSE(is_running(pid));
}

TEST_CASE("a worker that is killed while it waits is replaced, and one that runs is told of") {
    Rig rig(2);
    REQUIRE(rig.turn_until([&] { return rig.pool->counts().ready == 2; }));
    const auto victim = rig.pool->vms().front();
    ::kill(victim.pid, SIGKILL);
    REQUIRE(rig.turn_until(
        [&] { return rig.pool->counts().lost == 1 && rig.pool->counts().ready == 2; }));
    const auto running = rig.launch(1).front();
    CHECK(running.names.id != victim.names.id);
    rig.reply_of(running);
    std::optional<int> status;
    rig.pool->on_end([&](const PooledVm& vm, int how) {
        if (vm.names.id == running.names.id)
            status = how;
    });
    ::kill(running.pid, SIGKILL);
    REQUIRE(rig.turn_until([&] { return status.has_value(); }));
    CHECK(WTERMSIG(*status) == SIGKILL);
    CHECK_FALSE(std::filesystem::exists(running.names.folder));
}

TEST_CASE("workers that are only forked load at the launch") {
    Rig rig(2, Level::Forked);
    std::set<GenerationId> ids;
    for (const auto& vm : rig.launch(4))
        ids.insert(rig.reply_of(vm));
    CHECK(ids.size() == 4);
}

TEST_CASE("VMs do not outlive the process that forked them, nor their owner") {
    std::vector<pid_t> pids;
    {
        Rig rig(2);
        for (const auto& vm : rig.launch(2))
            pids.push_back(vm.pid);
        REQUIRE(rig.turn_until([&] { return rig.pool->counts().ready == 2; }));
        for (const auto& vm : rig.pool->vms())
            pids.push_back(vm.pid);
        ::kill(rig.host->pid(), SIGKILL);
        REQUIRE(rig.turn_until([&] { return rig.pool->vms().empty(); }));
        CHECK(rig.turn_until(
            [&] { return std::ranges::none_of(pids, [](pid_t pid) { return is_running(pid); }); }));
    }
    {
        Rig rig(2);
        REQUIRE(rig.turn_until([&] { return rig.pool->counts().ready == 2; }));
        for (const auto& vm : rig.pool->vms())
            pids.push_back(vm.pid);
    }
    for (const auto pid : pids)
        CHECK_FALSE(is_running(pid));
}
