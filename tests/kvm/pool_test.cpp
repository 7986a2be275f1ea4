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

#include "base/atomic_file.hpp"
#include "tests/kvm/clone_template.hpp"
#include "vmm/pool/fork_server.hpp"
#include "vmm/unix_listener.hpp"

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

    explicit Rig(unsigned size, Level level = Level::Loaded,
                 jail::FilterMode filters = jail::FilterMode::Off) {
        auto started = ForkServer::start(*loop, MASU_VMM);
        REQUIRE_MESSAGE(started, started.error().message);
        host = *std::move(started);
        PoolSettings settings{.size = size,
                              .level = level,
                              .folder = from.folder() / "pool",
                              .load = from.load(first_worker_descriptor),
                              .setup = {},
                              .jail = {.filters = filters}};
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

// By the kernel's account of each thread. One that has not run yet has what its maker had.
bool is_confined(pid_t pid) {
    std::error_code error;
    std::size_t threads = 0;
    for (const auto& thread :
         std::filesystem::directory_iterator(fmt::format("/proc/{}/task", pid), error)) {
        const auto status = read_file(thread.path() / "status", 65536).value_or("");
        for (const auto* line : {"\nSeccomp:\t2\n", "\nNoNewPrivs:\t1\n",
                                 "\nCapEff:\t0000000000000000\n", "\nCapPrm:\t0000000000000000\n"})
            if (!status.contains(line))
                return false;
        ++threads;
    }
    return threads >= 2;  // a loop and a vCPU
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

TEST_CASE("a pool's monitors are in their jail before they are wanted, and answer from there") {
    for (const auto level : {Level::Loaded, Level::Forked}) {
        CAPTURE(static_cast<int>(level));
        Rig rig(2, level, jail::FilterMode::Enforce);
        REQUIRE(rig.turn_until([&] { return rig.pool->counts().ready == 2; }));
        if (level == Level::Loaded)
            for (const auto& vm : rig.pool->vms())
                CHECK(rig.turn_until([&] { return is_confined(vm.pid); }));
        int status = -1;
        rig.pool->on_end([&](const PooledVm&, int how) { status = how; });
        std::set<GenerationId> ids;
        for (const auto& vm : rig.launch(4)) {
            ids.insert(rig.reply_of(vm));
            CHECK(rig.turn_until([&] { return is_confined(vm.pid); }));
            CHECK(std::filesystem::exists(vm.names.folder + "/disk.overlay"));
            status = -1;
            REQUIRE(rig.pool->end_vm(vm.names.id));
            REQUIRE(rig.turn_until([&] { return status != -1; }));
            CHECK(status == 0);  // of its own accord, and not by a filter
            CHECK_FALSE(std::filesystem::exists(vm.names.folder));
        }
        CHECK(ids.size() == 4);
        CHECK(rig.pool->counts().lost == 0);
    }
}

TEST_CASE("a jailed VM of a pool does not reach another's folder") {
    Rig rig(2, Level::Loaded, jail::FilterMode::Enforce);
    const auto vms = rig.launch(2);
    auto channel = *RequestChannel::create(*rig.loop, *connect_unix_now(vms[0].api_socket()),
                                           [](const std::string&) {});
    const auto ask = [&](const Request& request) {
        std::optional<Reply> reply;
        REQUIRE(channel->ask(request, [&](Reply answer) { reply = std::move(answer); }));
        REQUIRE(rig.turn_until([&] { return reply.has_value(); }));
        return *reply;
    };
    const auto save_to = [&](const PooledVm& vm) {
        return ask({.method = "PUT",
                    .path = "/snapshot/create",
                    .body = fmt::format(R"({{"directory": "{}/saved"}})", vm.names.folder)});
    };
    REQUIRE(ask({"PATCH", "/vm", R"({"state": "Paused"})"}).status == 204);
    CHECK(save_to(vms[0]).status == 204);
    if (jail::landlock_abi() == 0)
        return;
    const auto refused = save_to(vms[1]);
    CHECK(refused.status == 400);
    CHECK(refused.body.contains("the jail is why"));
    CHECK_FALSE(std::filesystem::exists(vms[1].names.folder + "/saved"));
}

TEST_CASE("what was read ahead of a launch is of no use once the snapshot is another") {
    Rig rig(2, Level::Forked);
    REQUIRE(rig.turn_until([&] { return rig.pool->counts().ready == 2; }));
    const auto state = rig.from.path() + "/state";
    std::filesystem::copy_file(state, state + ".new");
    std::filesystem::rename(state + ".new", state);
    rig.reply_of(rig.launch(1).front());
    std::ofstream(state) << "MASUSNAP, but no more";
    std::string error;
    rig.pool->launch({}, [&](Result<PooledVm> vm) { error = vm ? "" : vm.error().message; });
    REQUIRE(rig.turn_until([&] { return !error.empty(); }));
    CHECK(error.contains(state));
}

TEST_CASE("each VM of a pool has a vsock of its own, which goes with it") {
    Rig rig(2);
    for (const auto& vm : rig.launch(2)) {
        rig.reply_of(vm);
        const auto path = vm.names.folder + "/vsock";
        const auto client = connect_unix_now(path);
        CHECK_MESSAGE(client, path);
        REQUIRE(rig.pool->end_vm(vm.names.id));
        CHECK(rig.turn_until([&] { return !std::filesystem::exists(path); }));
    }
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
