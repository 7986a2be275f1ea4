// Masu's side: pools of real monitors, or one masu-vmm for each launch.
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "tests/bench/launch_sides.hpp"
#include "tests/bench/launch_support.hpp"
#include "vmm/api/json_reader.hpp"
#include "vmm/pool/fork_server.hpp"
#include "vmm/pool/pool.hpp"

namespace masu::bench {
namespace {

using test::clone_frame_size;

constexpr int worker_network_fd = 4;  // behind the control socket
// Milestones count from the first microsecond of the monotonic clock: they are times of it.
const std::vector<std::string> absolute_milestones{"--start-time-us", "1"};
constexpr Nanoseconds start_time = 1000;
constexpr Nanoseconds never = 3'600'000'000'000;

// Asks a control socket that answers at once.
std::string ask(const Fd& socket, const std::string& request) {
    std::ignore = ::send(socket.get(), request.data(), request.size(), MSG_NOSIGNAL);
    std::string input;
    for (;;) {
        char buffer[4096];
        const auto count = ::recv(socket.get(), buffer, sizeof buffer, 0);
        if (count <= 0)
            require<void>(fail("a monitor hung up"));
        input.append(buffer, static_cast<std::size_t>(count));
        if (auto reply = require(pool::take_reply(input))) {
            if (reply->status >= 300)
                require<void>(fail("a monitor refuses: {}", reply->body));
            return std::move(reply->body);
        }
    }
}

Nanoseconds first_exit_of(const Fd& socket) {
    const auto body = ask(socket, pool::format_request({"GET", "/boot-timer", ""}));
    auto times = require(api::JsonObject::parse(body, "boot-timer"));
    return times.required_integer("kernel_entry") + start_time;
}

Fd connect(const std::string& path) {
    Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0)
        require<void>(fail_errno(errno, "cannot connect to {}", path));
    return socket;
}

class PooledSide final : public Side {
  public:
    PooledSide(const test::CloneTemplate& from, const Programs& programs, Level level,
               std::size_t count)
        : count_(count),
          loop_(require(EventLoop::create())),
          host_(require(pool::ForkServer::start(*loop_, programs.masu_vmm))) {
        pool::PoolSettings settings{
            .size = static_cast<unsigned>(count),
            .level = level == Level::Forked ? pool::Level::Forked : pool::Level::Loaded,
            .folder = programs.folder + "/pool",
            .load = from.load(worker_network_fd),
            .setup = {},
            .monitor_arguments = absolute_milestones,
            .jail = programs.jail,
            .refill_delay = never};
        pool_ = require(pool::Pool::create(*loop_, *host_, settings, Log(), networks_.maker()));
        pool_->on_end([this](const pool::PooledVm& vm, int) { ended_ = vm.names.id; });
    }
    ~PooledSide() override {
        bool ended = false;
        pool_->end([&ended] { ended = true; });
        while (!ended)
            loop_->run_once(-1);
    }
    // The first time: until the pool is full, which it is again after each round.
    void prepare() override {
        if (pool_->counts().launched > 0)
            pool_->refill();
        while (pool_->counts().ready < count_) {
            loop_->run_once(-1);
            if (!pool_->last_error().empty())
                require<void>(fail("{}", pool_->last_error()));
        }
    }
    std::vector<LaunchTimes> launch_all() override {
        watch_replies();
        std::vector<pool::PooledVm> vms;
        const auto trigger = clock_.now();
        for (std::size_t i = 0; i < count_; ++i)
            pool_->launch(
                {}, [&vms](Result<pool::PooledVm> vm) { vms.push_back(require(std::move(vm))); });
        while (vms.size() < count_ || replies_.size() < count_)
            loop_->run_once(-1);
        std::vector<LaunchTimes> times;
        for (const auto& vm : vms)
            times.push_back({.trigger = trigger,
                             .first_exit = first_exit_of(connect(vm.api_socket())),
                             .reply = replies_.at(vm.names.id)});
        watches_.clear();
        replies_.clear();
        for (std::size_t i = 0; i < count_; ++i)
            end(vms[i], times[i]);
        return times;
    }
    // All of them run, and stay.
    void launch_and_stay() {
        std::size_t running = 0;
        for (std::size_t i = 0; i < count_; ++i)
            pool_->launch(
                {}, [&running](const Result<pool::PooledVm>& vm) { running += vm.has_value(); });
        while (running < count_)
            loop_->run_once(-1);
    }

  private:
    void watch_replies() {
        for (const auto& vm : pool_->vms()) {
            const auto& socket = networks_.of(vm.names.id);
            watches_.push_back(require(
                loop_->watch(socket.get(), EPOLLIN, [this, id = vm.names.id](std::uint32_t) {
                    const auto now = clock_.now();
                    std::array<std::byte, clone_frame_size> frame{};
                    read_whole(networks_.of(id), frame.data(), frame.size());
                    replies_[id] = now;
                })));
        }
    }
    void end(const pool::PooledVm& vm, LaunchTimes& times) {
        ended_.clear();
        times.end_asked = clock_.now();
        require(pool_->end_vm(vm.names.id));
        while (ended_ != vm.names.id)
            loop_->run_once(-1);
        times.ended = clock_.now();
        networks_.forget(vm.names.id);
    }

    SystemClock clock_;
    std::size_t count_;
    std::unique_ptr<EventLoop> loop_;
    std::unique_ptr<pool::ForkServer> host_;
    test::CloneNetworks networks_;
    std::unique_ptr<pool::Pool> pool_;
    std::map<std::string, Nanoseconds> replies_;
    std::vector<EventLoop::Watch> watches_;
    std::string ended_;
};

class FreshSide final : public Side {
  public:
    FreshSide(const test::CloneTemplate& from, const Programs& programs, std::size_t count)
        : folder_(programs.folder + "/fresh"), count_(count) {
        command_ = {programs.masu_vmm, "--api-fd", "3", "--console", "none"};
        command_.insert(command_.end(), absolute_milestones.begin(), absolute_milestones.end());
        auto jail = programs.jail;
        jail.files.read = {from.path()};
        jail.files.write = {folder_};
        for (auto& argument : jail::arguments(jail))
            command_.push_back(std::move(argument));
        const auto load = require(pool::load_template(from.load(worker_network_fd)));
        load_ = pool::load_body(load, true);
    }
    // Sockets and folders; the request waits in the socket for its reader.
    void prepare() override {
        std::filesystem::remove_all(folder_);
        processes_.clear();
        for (std::size_t i = 0; i < count_; ++i) {
            Process process;
            std::tie(process.control, process.control_end) = socket_pair();
            std::tie(process.network, process.network_end) = socket_pair();
            const pool::VmNames names{.id = "fresh",
                                      .number = 1,
                                      .folder = fmt::format("{}/{}", folder_, i),
                                      .instance_id = "i-0"};
            std::filesystem::create_directories(names.folder);
            const auto text =
                pool::format_request({"PUT", "/snapshot/load", pool::with_names(load_, names)});
            std::ignore = ::send(process.control.get(), text.data(), text.size(), MSG_NOSIGNAL);
            processes_.push_back(std::move(process));
        }
    }
    std::vector<LaunchTimes> launch_all() override {
        std::vector<LaunchTimes> times(count_);
        const auto trigger = clock_.now();
        for (auto& process : processes_) {
            const std::array descriptors{process.control_end.get(), process.network_end.get()};
            process.pid = spawn(command_, descriptors);
            process.control_end.reset();
            process.network_end.reset();
        }
        wait_for_replies(times);
        for (std::size_t i = 0; i < count_; ++i) {
            auto& process = processes_[i];
            times[i].trigger = trigger;
            ask(process.control, "");  // the load's reply
            times[i].first_exit = first_exit_of(process.control);
            times[i].end_asked = clock_.now();
            process.control.reset();
            ::waitpid(process.pid, nullptr, 0);
            times[i].ended = clock_.now();
        }
        return times;
    }

  private:
    struct Process {
        Fd control;
        Fd control_end;
        Fd network;
        Fd network_end;
        pid_t pid = 0;
    };
    void wait_for_replies(std::vector<LaunchTimes>& times) {
        std::vector<pollfd> polled;
        for (const auto& process : processes_)
            polled.push_back({process.network.get(), POLLIN, 0});
        for (std::size_t left = count_; left > 0;) {
            ::poll(polled.data(), polled.size(), -1);
            for (std::size_t i = 0; i < count_; ++i) {
                if (polled[i].revents == 0)
                    continue;
                times[i].reply = clock_.now();
                std::array<std::byte, clone_frame_size> frame{};
                read_whole(processes_[i].network, frame.data(), frame.size());
                polled[i].fd = -1;
                polled[i].revents = 0;
                --left;
            }
        }
    }

    SystemClock clock_;
    std::string folder_;
    std::size_t count_;
    std::vector<std::string> command_;
    std::string load_;
    std::vector<Process> processes_;
};

// KiB.
double available_memory() {
    std::ifstream file("/proc/meminfo");
    std::string word;
    double value = 0;
    while (file >> word)
        if (word == "MemAvailable:" && file >> value)
            return value;
    return 0;
}

}  // namespace

std::unique_ptr<Side> make_masu(const test::CloneTemplate& from, const Programs& programs,
                                Level level, std::size_t count) {
    if (level == Level::Fresh)
        return std::make_unique<FreshSide>(from, programs, count);
    return std::make_unique<PooledSide>(from, programs, level, count);
}

double memory_per_clone(const test::CloneTemplate& from, const Programs& programs,
                        std::size_t count) {
    const auto before = available_memory();
    PooledSide side(from, programs, Level::Loaded, count);
    side.prepare();
    side.launch_and_stay();
    return (before - available_memory()) / static_cast<double>(count);
}

}  // namespace masu::bench
