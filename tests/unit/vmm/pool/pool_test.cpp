// A pool over workers that are HTTP servers in this process.
#include <doctest/doctest.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>

#include "vmm/api/http_server.hpp"
#include "vmm/pool/pool.hpp"
#include "vmm/pool/pool_api.hpp"

using namespace masu;
using namespace masu::pool;

namespace {

struct FakeWorker {
    std::vector<std::string> arguments;
    std::unique_ptr<api::HttpServer> server;
    std::vector<std::string> asked;
    std::vector<std::string> bodies;
};

// Ends a worker when its client hangs up.
class FakeHost final : public WorkerHost {
  public:
    explicit FakeHost(EventLoop& loop) : loop_(loop) {}
    void listen(Events events) override { events_ = std::move(events); }
    Result<> start(std::uint64_t key, const std::vector<std::string>& arguments,
                   std::span<const Fd> descriptors) override {
        if (refuse_start)
            return fail("no more processes");
        auto& worker = workers[key];
        worker.arguments = arguments;
        worker.server = std::make_unique<api::HttpServer>(
            loop_, api::HttpLimits(),
            [this, &worker](const api::HttpRequest& request) {
                worker.asked.push_back(fmt::format("{} {}", request.method, request.target));
                worker.bodies.emplace_back(request.body);
                return refuse == request.target
                           ? api::HttpReply{400, R"({"fault_message":"not today"})"}
                           : api::HttpReply{};
            },
            Log());
        worker.server->serve(*descriptors[0].duplicate());
        descriptor_counts.push_back(descriptors.size());
        loop_.post([this, key] {
            if (events_.started)
                events_.started(key, static_cast<pid_t>(1000 + key));
        });
        ++started;
        return {};
    }
    void kill(std::uint64_t key) override { end(key, 9); }
    void end(std::uint64_t key, int status) {
        workers.erase(key);
        if (events_.ended)
            events_.ended(key, status);
    }
    void reap() {
        std::vector<std::uint64_t> gone;
        for (const auto& [key, worker] : workers)
            if (worker.server->connections() == 0)
                gone.push_back(key);
        for (const auto key : gone)
            end(key, 0);
    }
    void lose() { events_.lost("it has ended"); }

    std::map<std::uint64_t, FakeWorker> workers;
    std::vector<std::size_t> descriptor_counts;
    std::string refuse;
    bool refuse_start = false;
    unsigned started = 0;

  private:
    EventLoop& loop_;
    Events events_;
};

// There are no monitors to confine, nor snapshots.
const jail::Options no_jail{.filters = jail::FilterMode::Off};

struct Folder {
    std::string path = "/tmp/masu-pool-test-XXXXXX";
    Folder() { REQUIRE(::mkdtemp(path.data()) != nullptr); }
    ~Folder() { std::filesystem::remove_all(path); }
    [[nodiscard]] std::size_t vm_folders() const {
        return static_cast<std::size_t>(
            std::ranges::count_if(std::filesystem::directory_iterator(path),
                                  [](const auto& entry) { return entry.is_directory(); }));
    }
};

struct Rig {
    Folder folder;
    std::unique_ptr<EventLoop> loop = *EventLoop::create();
    FakeHost host{*loop};
    std::unique_ptr<Pool> pool;

    explicit Rig(PoolSettings settings = {}) {
        settings.folder = folder.path;
        settings.jail = no_jail;
        if (settings.load.empty())
            settings.load = R"({"directory": "/snap"})";
        settings.refill_delay = 1'000'000;
        pool = require(Pool::create(*loop, host, settings, Log()));
    }
    static std::unique_ptr<Pool> require(Result<std::unique_ptr<Pool>> made) {
        REQUIRE_MESSAGE(made, made.error().message);
        return *std::move(made);
    }
    template <class Condition>
    bool turn_until(Condition condition) {
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
        while (!condition()) {
            if (std::chrono::steady_clock::now() > end)
                return false;
            loop->run_once(5);
            host.reap();
        }
        return true;
    }
    bool fill() {
        return turn_until([this] { return pool->counts().ready == pool->settings().size; });
    }
    Result<PooledVm> launch(std::vector<Request> requests = {}) {
        std::optional<Result<PooledVm>> result;
        pool->launch(std::move(requests),
                     [&result](Result<PooledVm> vm) { result = std::move(vm); });
        REQUIRE(turn_until([&result] { return result.has_value(); }));
        return *result;
    }
};

}  // namespace

TEST_CASE("a pool makes as many VMs as it keeps, each with names of its own") {
    Rig rig({.size = 3});
    REQUIRE(rig.fill());
    CHECK(rig.host.started == 3);
    const auto vms = rig.pool->vms();
    REQUIRE(vms.size() == 3);
    std::set<std::string> ids;
    for (std::size_t i = 0; i < 3; ++i) {
        CHECK(vms[i].names.number == i + 1);
        CHECK(vms[i].pid == static_cast<pid_t>(1001 + i));
        CHECK(std::filesystem::is_directory(vms[i].names.folder));
        ids.insert(vms[i].names.instance_id);
    }
    CHECK(ids.size() == 3);
    for (const auto& [key, worker] : rig.host.workers) {
        REQUIRE(worker.asked == std::vector<std::string>{"PUT /snapshot/load"});
        const auto& vm = vms[key - 1];
        CHECK(
            worker.bodies[0] ==
            fmt::format(R"({{"resume_vm":false,"identity":{{"instance_id":"{}","hostname":"{}"}},)"
                        R"("overlay_folder":"{}","directory": "/snap"}})",
                        vm.names.instance_id, vm.names.id, vm.names.folder));
    }
}

TEST_CASE("a launch lets the VM run that has been ready longest, and another is made behind it") {
    Rig rig({.size = 2});
    REQUIRE(rig.fill());
    const auto vm = rig.launch({{"PUT", "/mmds", R"({"who": "{id}"})"}});
    REQUIRE(vm);
    CHECK(vm->names.id == "vm-1");
    CHECK(vm->state == WorkerState::Running);
    const auto& worker = rig.host.workers.at(1);
    CHECK(worker.asked == std::vector<std::string>{"PUT /snapshot/load", "PUT /mmds", "PATCH /vm"});
    CHECK(worker.bodies[1] == R"({"who": "vm-1"})");
    REQUIRE(rig.fill());
    CHECK(rig.host.started == 3);
    CHECK(rig.pool->counts().running == 1);
    CHECK(rig.pool->counts().launched == 1);
}

TEST_CASE("launches of an empty pool wait, and each gets a VM of its own") {
    Rig rig({.size = 1});
    std::set<std::string> ids;
    unsigned failures = 0;
    for (int i = 0; i < 20; ++i)
        rig.pool->launch({}, [&](const Result<PooledVm>& vm) {
            if (vm)
                ids.insert(vm->names.id);
            else
                ++failures;
        });
    CHECK(rig.turn_until([&] { return ids.size() + failures == 20; }));
    CHECK(failures == 0);
    REQUIRE(rig.fill());
    CHECK(rig.host.started == 21);
}

TEST_CASE("a VM that is ended gives back folder and number, and its end is told") {
    Rig rig({.size = 1});
    std::vector<std::string> ended;
    rig.pool->on_end([&](const PooledVm& vm, int status) {
        ended.push_back(fmt::format("{} {}", vm.names.id, status));
    });
    REQUIRE(rig.fill());
    const auto first = rig.launch();
    REQUIRE(rig.fill());
    CHECK(rig.pool->vms().back().names.number == 2);
    REQUIRE(rig.pool->end_vm(first->names.id));
    CHECK_FALSE(rig.pool->end_vm(first->names.id));
    CHECK_FALSE(rig.pool->end_vm("vm-2"));  // not launched
    CHECK(rig.turn_until([&] { return !ended.empty(); }));
    CHECK(ended == std::vector<std::string>{"vm-1 0"});
    CHECK_FALSE(std::filesystem::exists(first->names.folder));
    REQUIRE(rig.launch());
    REQUIRE(rig.fill());
    CHECK(rig.pool->vms().back().names.number == 1);

    rig.host.end(2, 0x300);  // a guest that panicked
    CHECK(ended.back() == "vm-2 768");
}

TEST_CASE("a VM that ends before it is launched is replaced") {
    Rig rig({.size = 2});
    REQUIRE(rig.fill());
    rig.host.end(1, 9);
    REQUIRE(rig.fill());
    CHECK(rig.host.started == 3);
    CHECK(rig.pool->counts().lost == 1);
    CHECK(rig.folder.vm_folders() == 2);
}

TEST_CASE("a snapshot that cannot be loaded is told of to those who launch, and tried again") {
    Rig rig({.size = 2});
    rig.host.refuse = "/snapshot/load";
    const auto refused = rig.launch();
    REQUIRE_FALSE(refused);
    CHECK(refused.error().message ==
          "no VM is ready, since none can be made: PUT /snapshot/load: not today");
    CHECK(rig.pool->last_error() == "PUT /snapshot/load: not today");
    CHECK(rig.host.started <= 2);
    rig.host.refuse.clear();
    REQUIRE(rig.fill());
    CHECK(rig.pool->last_error().empty());
    CHECK(rig.launch());
}

TEST_CASE("a launch whose requests are refused ends its VM and no other") {
    Rig rig({.size = 2});
    REQUIRE(rig.fill());
    rig.host.refuse = "/mmds";
    const auto refused = rig.launch({{"PUT", "/mmds", "{}"}});
    REQUIRE_FALSE(refused);
    CHECK(refused.error().message == "PUT /mmds: not today");
    CHECK(rig.turn_until([&] { return !rig.host.workers.contains(1); }));
    CHECK(rig.launch());
}

TEST_CASE("without processes there are no VMs, and the reason is told") {
    Rig rig({.size = 1});
    REQUIRE(rig.fill());
    rig.host.refuse_start = true;
    REQUIRE(rig.launch());
    const auto refused = rig.launch();
    REQUIRE_FALSE(refused);
    CHECK(refused.error().message.ends_with("no more processes"));
    CHECK(rig.folder.vm_folders() == 1);
}

TEST_CASE("the level forked loads and starts in one request") {
    Rig rig({.size = 1, .level = Level::Forked});
    REQUIRE(rig.fill());
    CHECK(rig.host.workers.at(1).asked == std::vector<std::string>{"PUT /snapshot/prepare"});
    REQUIRE(rig.launch());
    CHECK(rig.host.workers.at(1).asked ==
          std::vector<std::string>{"PUT /snapshot/prepare", "PUT /snapshot/load"});
    CHECK(rig.host.workers.at(1).bodies[1].starts_with(R"({"resume_vm":true,)"));
    REQUIRE(rig.fill());
    REQUIRE(rig.launch({{"PUT", "/mmds", "{}"}}));
    CHECK(rig.host.workers.at(2).asked == std::vector<std::string>{"PUT /snapshot/prepare",
                                                                   "PUT /snapshot/load",
                                                                   "PUT /mmds", "PATCH /vm"});
}

TEST_CASE("setup comes between the load and readiness, and the most VMs are a bound") {
    Rig rig({.size = 2, .most_vms = 2, .setup = {{"PUT", "/network-interfaces/e{n}", "{}"}}});
    REQUIRE(rig.fill());
    CHECK(rig.host.workers.at(2).asked ==
          std::vector<std::string>{"PUT /snapshot/load", "PUT /network-interfaces/e2"});
    REQUIRE(rig.launch());
    REQUIRE(rig.launch());
    const auto refused = rig.launch();
    REQUIRE_FALSE(refused);
    CHECK(refused.error().message == "the pool has its full number of 2 VMs: end some");
    CHECK(rig.host.started == 2);
}

TEST_CASE("at the end every process and folder is gone, and nothing is launched any more") {
    Rig rig({.size = 3});
    REQUIRE(rig.fill());
    REQUIRE(rig.launch());
    bool ended = false;
    rig.pool->end([&] { ended = true; });
    CHECK_FALSE(rig.launch());
    CHECK(rig.turn_until([&] { return ended; }));
    CHECK(rig.host.workers.empty());
    CHECK(rig.folder.vm_folders() == 0);
}

TEST_CASE("a pool whose workers' process is lost says so") {
    Rig rig({.size = 2});
    REQUIRE(rig.fill());
    REQUIRE(rig.launch());
    unsigned ended = 0;
    rig.pool->on_end([&](const PooledVm&, int) { ++ended; });
    rig.host.lose();
    CHECK(ended == 1);
    CHECK(rig.pool->vms().empty());
    CHECK(rig.launch().error().message == "it has ended");
    CHECK(rig.folder.vm_folders() == 0);
}

TEST_CASE("a folder belongs to one pool at a time, and what a killed one left goes") {
    Rig rig({.size = 1});
    REQUIRE(rig.fill());
    FakeHost other(*rig.loop);
    PoolSettings settings{.size = 1,
                          .folder = rig.folder.path,
                          .load = R"({"directory": "/s"})",
                          .setup = {},
                          .jail = no_jail};
    CHECK_FALSE(Pool::create(*rig.loop, other, settings, Log()));
    rig.pool.reset();
    std::filesystem::create_directories(rig.folder.path + "/vm-99/deep");
    std::filesystem::create_directories(rig.folder.path + "/vm-keep");
    const auto second = Pool::create(*rig.loop, other, settings, Log());
    REQUIRE(second);
    CHECK_FALSE(std::filesystem::exists(rig.folder.path + "/vm-99"));
    CHECK(std::filesystem::exists(rig.folder.path + "/vm-keep"));
}

TEST_CASE("descriptors of the caller's follow the worker's socket") {
    Folder folder;
    auto loop = *EventLoop::create();
    FakeHost host(*loop);
    PoolSettings settings{.size = 1,
                          .folder = folder.path,
                          .load = R"({"directory": "/s"})",
                          .setup = {},
                          .jail = no_jail};
    const auto pool =
        Pool::create(*loop, host, settings, Log(), [](const VmNames&) -> Result<std::vector<Fd>> {
            std::vector<Fd> descriptors;
            for (int i = 0; i < 2; ++i)
                descriptors.emplace_back(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
            return descriptors;
        });
    REQUIRE(pool);
    loop->run_once(1000);
    CHECK(host.descriptor_counts == std::vector<std::size_t>{3});
}

TEST_CASE("a load that no VM could take is refused at once") {
    for (const auto* bad : {"", "[]", "{}", R"({"directory": "/s", "resume_vm": true})",
                            R"({"directory": "/s", "color": 1})", R"({"directory": 5})"}) {
        CAPTURE(bad);
        CHECK_FALSE(load_template(bad));
    }
    const auto own = load_template(
        R"( {"directory": "/s", "overlay_folder": "/o/{n}", "identity": {"instance_id": "i-1", "hostname": "h"}})");
    REQUIRE(own);
    CHECK(own->starts_with(R"({"directory")"));
    const VmNames names{.id = "vm-7", .number = 3, .folder = "/a\"b", .instance_id = "i-0"};
    CHECK(with_names("{n}{id} {folder}", names) == R"(3vm-7 /a\"b)");
}

TEST_CASE("the control socket makes a pool, launches a batch, and tells how it is") {
    Folder folder;
    auto loop = *EventLoop::create();
    FakeHost host(*loop);
    bool ended = false;
    PoolApi pool(*loop, host, Log(), [&] { ended = true; }, no_jail);
    const auto ask = [&](std::string_view method, std::string_view target, std::string_view body) {
        std::optional<api::HttpReply> reply;
        pool.handle({method, target, body},
                    [&](api::HttpReply given) { reply = std::move(given); });
        for (int i = 0; i < 1000 && !reply; ++i) {
            loop->run_once(5);
            host.reap();
        }
        REQUIRE(reply);
        return *reply;
    };
    CHECK(ask("PUT", "/pool/launch", "").status == 400);
    CHECK(ask("PUT", "/pool", R"({"size": 2})").status == 400);
    CHECK(
        ask("PUT", "/pool", R"({"size": 0, "folder": "/x", "load": {"directory": "/s"}})").status ==
        400);
    const auto settings = fmt::format(
        R"({{"size": 2, "folder": "{}", "refill_delay_ms": 0, "load": {{"directory": "/s"}}}})",
        folder.path);
    CHECK(ask("PUT", "/pool", settings).status == 204);
    CHECK(ask("PUT", "/pool", settings).status == 400);
    const auto launched = ask("PUT", "/pool/launch", R"({"count": 5})");
    CHECK(launched.status == 200);
    CHECK(launched.body.find(R"("id":"vm-5")") != std::string::npos);
    CHECK(launched.body.find(R"("failures":[])") != std::string::npos);
    CHECK(ask("PUT", "/pool/launch", R"({"count": 0})").status == 400);
    CHECK(ask("PUT", "/pool/launch", R"({"requests": [{"method": "GET", "path": "/"}]})").status ==
          400);
    CHECK(ask("GET", "/pool", "").body.find(R"("running":5)") != std::string::npos);
    CHECK(ask("DELETE", "/pool/vms/vm-1", "").status == 204);
    CHECK(ask("DELETE", "/pool/vms/vm-1", "").status == 400);
    CHECK(ask("GET", "/", "").status == 400);
    CHECK(ask("DELETE", "/pool", "").status == 204);
    for (int i = 0; i < 1000 && !ended; ++i) {
        loop->run_once(5);
        host.reap();
    }
    CHECK(ended);
}
