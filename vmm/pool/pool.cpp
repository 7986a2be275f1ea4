// Bookkeeping of a pool's workers.
#include "vmm/pool/pool.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <filesystem>
#include <iterator>

#include "vmm/api/bodies.hpp"
#include "vmm/api/json_reader.hpp"
#include "vmm/snapshot/loaded_files.hpp"
#include "vmm/snapshot/read_ahead.hpp"

namespace masu::pool {
namespace {

// Making one is work for the host's cores, which running guests want too.
constexpr std::size_t prepared_at_once = 2;
constexpr Nanoseconds ending_patience = 5'000'000'000;
constexpr Nanoseconds first_retry = 100'000'000;
constexpr unsigned most_doublings = 6;

const Request resume{.method = "PATCH", .path = "/vm", .body = R"({"state":"Resumed"})"};

// The reason in a refusal of a control socket.
std::string reason_of(const Request& request, const Reply& reply) {
    auto body = api::JsonObject::parse(reply.body, "reply");
    const auto reason = body ? body->string("fault_message") : std::nullopt;
    return fmt::format("{} {}: {}", request.method, request.path,
                       reason.value_or(fmt::format("status {}", reply.status)));
}

bool is_vm_folder(const std::string& name) {
    return name.starts_with("vm-") && name.size() > 3 &&
           std::ranges::all_of(name.substr(3), [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

std::string_view to_string(WorkerState state) {
    constexpr std::array<std::string_view, 5> names{"preparing", "ready", "launching", "running",
                                                    "ending"};
    return names[static_cast<std::size_t>(state)];
}

Pool::Pool(EventLoop& loop, WorkerHost& host, PoolSettings settings, Log log,
           WorkerDescriptors descriptors)
    : loop_(loop),
      host_(host),
      settings_(std::move(settings)),
      log_(log.with_component("pool")),
      descriptors_(std::move(descriptors)) {}

Result<std::unique_ptr<Pool>> Pool::create(EventLoop& loop, WorkerHost& host, PoolSettings settings,
                                           Log log, WorkerDescriptors descriptors) {
    if (settings.size < 1 || settings.size > max_pool_size)
        return fail("a pool keeps 1 to {} VMs ready, not {}", max_pool_size, settings.size);
    if (settings.most_vms < settings.size)
        return fail("most_vms ({}) is less than size ({})", settings.most_vms, settings.size);
    settings.load = TRY(load_template(settings.load));
    std::unique_ptr<Pool> pool(
        new Pool(loop, host, std::move(settings), std::move(log), std::move(descriptors)));
    auto* self = pool.get();
    TRY(self->take_folder());
    self->refill_timer_.emplace(TRY(loop.timer([self] { self->refill(); })));
    host.listen({.started = [self](auto key, pid_t pid) { self->on_started(key, pid); },
                 .ended = [self](auto key, int status) { self->on_ended(key, status); },
                 .lost = [self](const std::string& reason) { self->on_lost(reason); }});
    self->refill_timer_->arm(0);
    return pool;
}

Pool::~Pool() {
    host_.listen({});
    for (auto& [key, worker] : workers_) {
        worker->channel.reset();
        std::error_code ignored;
        std::filesystem::remove_all(worker->vm.names.folder, ignored);
    }
}

// What a pool that was killed has left there goes.
Result<> Pool::take_folder() {
    const auto& folder = settings_.folder;
    constexpr std::size_t longest_name = sizeof "/vm-18446744073709551615/api.sock";
    if (!folder.starts_with('/') || folder.size() + longest_name > sizeof sockaddr_un().sun_path)
        return fail("the pool's folder must be an absolute path of at most {} bytes",
                    sizeof sockaddr_un().sun_path - longest_name);
    if (::mkdir(folder.c_str(), 0700) < 0 && errno != EEXIST)
        return fail_errno(errno, "cannot make the pool's folder {}", folder);
    const auto lock = folder + "/pool.lock";
    folder_lock_.reset(::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!folder_lock_)
        return fail_errno(errno, "cannot make {}", lock);
    if (::flock(folder_lock_.get(), LOCK_EX | LOCK_NB) < 0)
        return fail("the folder {} belongs to a pool that is alive: choose another", folder);
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(folder, error))
        if (is_vm_folder(entry.path().filename()))
            std::filesystem::remove_all(entry.path(), error);
    if (error)
        return fail("cannot clear the pool's folder {}: {}", folder, error.message());
    return {};
}

std::size_t Pool::count(WorkerState state) const {
    return static_cast<std::size_t>(std::ranges::count_if(
        workers_, [&](const auto& entry) { return entry.second->vm.state == state; }));
}

bool Pool::may_prepare() const {
    const auto preparing = count(WorkerState::Preparing);
    return !all_ended_ && !lost_ && preparing < prepared_at_once &&
           count(WorkerState::Ready) + preparing < settings_.size + waiting_.size() &&
           workers_.size() < settings_.most_vms;
}

void Pool::refill() {
    while (may_prepare())
        if (const auto begun = begin_worker(); !begun)
            return note_failure(begun.error().message);
}

// A launch that waits is behind nobody.
void Pool::refill_soon() {
    if (failures_in_a_row_ > 0)
        return;  // its timer is armed
    if (waiting_.empty())
        refill_timer_->arm(settings_.refill_delay);
    else
        refill();
}

Result<> Pool::begin_worker() {
    const auto key = next_key_++;
    auto worker = std::make_unique<Worker>();
    worker->key = key;
    auto& names = worker->vm.names;
    for (names.number = 1; numbers_.contains(names.number);)
        ++names.number;
    names.id = fmt::format("vm-{}", key);
    names.folder = fmt::format("{}/{}", settings_.folder, names.id);
    names.instance_id = TRY(random_instance_id());
    if (::mkdir(names.folder.c_str(), 0700) < 0)
        return fail_errno(errno, "cannot make the folder {}", names.folder);
    numbers_.insert(names.number);
    auto& placed = *workers_.emplace(key, std::move(worker)).first->second;
    if (auto begun = start_worker(placed); !begun) {
        forget(key);
        return begun;
    }
    if (settings_.level == Level::Forked) {
        placed.to_ask = {{"PUT", "/snapshot/prepare", load_body(settings_.load, false)}};
    } else {
        placed.to_ask.assign(settings_.setup.rbegin(), settings_.setup.rend());
        placed.to_ask.push_back({"PUT", "/snapshot/load", load_body(settings_.load, false)});
    }
    ask_next(key);
    return {};
}

Result<> Pool::start_worker(Worker& worker) {
    auto arguments = arguments_for(worker.vm);
    for (auto& argument : jail::arguments(TRY(jail_for(worker.vm))))
        arguments.push_back(std::move(argument));
    const auto descriptors = TRY(make_channel(worker));
    return host_.start(worker.key, arguments, descriptors);
}

// Each VM's own folder, and not the others'; the snapshot and the files that its load makes it
// open.
Result<jail::Options> Pool::jail_for(const PooledVm& vm) {
    auto jail = settings_.jail;
    if (jail.filters == jail::FilterMode::Off)
        return jail;
    auto body = TRY(api::JsonObject::parse(with_names(settings_.load, vm.names), "load"));
    const auto load = TRY(api::read_snapshot_load(body));
    if (!saved_config_ || saved_config_->state_path != load.state_path)
        saved_config_ = {.state_path = load.state_path,
                         .settings = TRY(snapshot::read_state(load.state_path)).settings};
    auto files = TRY(snapshot::loaded_files(saved_config_->settings, load));
    const auto add = [](std::vector<std::string>& to, std::vector<std::string>& from) {
        std::ranges::move(from, std::back_inserter(to));
    };
    add(jail.files.read, files.read);
    add(jail.files.write, files.write);
    add(jail.files.sockets, files.sockets);
    jail.files.write.push_back(vm.names.folder);
    return jail;
}

// The worker's end is its descriptor 3; those after it are the caller's.
Result<std::vector<Fd>> Pool::make_channel(Worker& worker) {
    std::vector<Fd> descriptors;
    int pair[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return fail_errno(errno, "cannot make a worker's socket");
    Fd ours(pair[0]);
    descriptors.emplace_back(pair[1]);
    worker.channel = TRY(RequestChannel::create(
        loop_, std::move(ours), [this, key = worker.key](std::string reason) {
            if (const auto found = workers_.find(key); found != workers_.end())
                end_worker(*found->second, std::move(reason));
        }));
    if (descriptors_)
        for (auto& fd : TRY(descriptors_(worker.vm.names)))
            descriptors.push_back(std::move(fd));
    return descriptors;
}

std::vector<std::string> Pool::arguments_for(const PooledVm& vm) const {
    std::vector<std::string> arguments{"masu-vmm",
                                       "--api-fd",
                                       "3",
                                       "--id",
                                       vm.names.id,
                                       "--api-sock",
                                       vm.api_socket(),
                                       "--console",
                                       "none",
                                       "--console-log",
                                       vm.names.folder + "/console.log",
                                       "--log-path",
                                       vm.names.folder + "/monitor.log",
                                       "--level",
                                       "warn"};
    arguments.insert(arguments.end(), settings_.monitor_arguments.begin(),
                     settings_.monitor_arguments.end());
    return arguments;
}

void Pool::ask_next(std::uint64_t key) {
    const auto found = workers_.find(key);
    if (found == workers_.end())
        return;
    auto& worker = *found->second;
    worker.idle = worker.to_ask.empty();
    if (worker.idle)
        return settle(worker);
    auto request = std::move(worker.to_ask.back());
    worker.to_ask.pop_back();
    request.path = with_names(request.path, worker.vm.names);
    request.body = with_names(request.body, worker.vm.names);
    const auto asked = worker.channel->ask(request, [this, key, request](const Reply& reply) {
        const auto place = workers_.find(key);
        if (place == workers_.end())
            return;
        if (reply.status >= 300)
            end_worker(*place->second, reason_of(request, reply));
        else
            ask_next(key);
    });
    if (!asked)
        end_worker(worker, asked.error().message);
}

// A worker that has been asked all has come to the next state.
void Pool::settle(Worker& worker) {
    if (worker.vm.pid == 0)
        return;  // until on_started()
    if (worker.vm.state == WorkerState::Launching) {
        worker.vm.state = WorkerState::Running;
        worker.launched = true;
        ++launched_count_;
        refill_soon();
        const auto launch = std::exchange(worker.launch, std::nullopt);
        return launch->done(worker.vm);
    }
    if (worker.vm.state != WorkerState::Preparing)
        return;
    worker.vm.state = WorkerState::Ready;
    failures_in_a_row_ = 0;
    last_error_.clear();
    if (!waiting_.empty()) {
        auto launch = std::move(waiting_.front());
        waiting_.pop_front();
        assign(worker, std::move(launch));
    }
    refill();
}

void Pool::launch(std::vector<Request> requests, std::function<void(Result<PooledVm>)> done) {
    Launch wanted{std::move(requests), std::move(done)};
    if (all_ended_ || lost_)
        return wanted.done(fail("{}", lost_.value_or("the pool is being ended")));
    const auto ready = std::ranges::find_if(
        workers_, [](const auto& entry) { return entry.second->vm.state == WorkerState::Ready; });
    if (ready != workers_.end())
        return assign(*ready->second, std::move(wanted));
    if (failures_in_a_row_ > 0)
        return wanted.done(fail("no VM is ready, since none can be made: {}", last_error_));
    if (waiting_.size() >= max_waiting)
        return wanted.done(fail("{} launches wait for a VM already: try again", max_waiting));
    if (workers_.size() >= settings_.most_vms && count(WorkerState::Preparing) == 0)
        return wanted.done(
            fail("the pool has its full number of {} VMs: end some", settings_.most_vms));
    waiting_.push_back(std::move(wanted));
    refill();
}

void Pool::assign(Worker& worker, Launch launch) {
    worker.vm.state = WorkerState::Launching;
    const bool load = settings_.level == Level::Forked;
    const bool at_once = load && settings_.setup.empty() && launch.requests.empty();
    if (!at_once)
        worker.to_ask.push_back(resume);
    worker.to_ask.insert(worker.to_ask.end(), launch.requests.rbegin(), launch.requests.rend());
    if (load) {
        worker.to_ask.insert(worker.to_ask.end(), settings_.setup.rbegin(), settings_.setup.rend());
        worker.to_ask.push_back({"PUT", "/snapshot/load", load_body(settings_.load, at_once)});
    }
    worker.launch = std::move(launch);
    ask_next(worker.key);
}

// Its process sees the end of its socket, and has a while to finish what its devices have begun.
void Pool::end_worker(Worker& worker, std::string reason) {
    if (worker.vm.state == WorkerState::Ending)
        return;
    const auto before = std::exchange(worker.vm.state, WorkerState::Ending);
    worker.channel.reset();
    worker.to_ask.clear();
    if (auto timer = loop_.timer([this, key = worker.key] { host_.kill(key); })) {
        worker.deadline.emplace(*std::move(timer));
        worker.deadline->arm(ending_patience);
    } else {
        host_.kill(worker.key);
    }
    if (const auto launch = std::exchange(worker.launch, std::nullopt)) {
        ++lost_count_;
        launch->done(fail("{}", reason));
    } else if (before == WorkerState::Preparing && !all_ended_) {
        ++lost_count_;
        note_failure(reason);
    } else if (before == WorkerState::Ready && !all_ended_) {
        ++lost_count_;
        log_.warn("a VM that was ready has ended", {kv("id", worker.vm.names.id)});
    }
}

// What keeps one from being made keeps the next, more often than not.
void Pool::note_failure(const std::string& reason) {
    last_error_ = reason;
    saved_config_.reset();  // what is there at the next try counts
    log_.warn("no VM could be made ready", {kv("reason", reason)});
    refill_timer_->arm(first_retry << std::min(failures_in_a_row_, most_doublings));
    ++failures_in_a_row_;
    fail_waiting(fmt::format("no VM is ready, since none can be made: {}", reason));
}

void Pool::fail_waiting(const std::string& reason) {
    for (auto& launch : std::exchange(waiting_, {}))
        launch.done(fail("{}", reason));
}

void Pool::forget(std::uint64_t key) {
    const auto found = workers_.find(key);
    std::error_code ignored;
    std::filesystem::remove_all(found->second->vm.names.folder, ignored);
    numbers_.erase(found->second->vm.names.number);
    workers_.erase(found);
}

void Pool::on_started(std::uint64_t key, pid_t pid) {
    const auto found = workers_.find(key);
    if (found == workers_.end())
        return;
    found->second->vm.pid = pid;
    if (found->second->idle)
        settle(*found->second);
}

void Pool::on_ended(std::uint64_t key, int status) {
    const auto found = workers_.find(key);
    if (found == workers_.end())
        return;
    end_worker(*found->second, fmt::format("its process has ended (wait status {})", status));
    const auto vm = found->second->vm;
    const bool launched = found->second->launched;
    forget(key);
    if (launched && ended_)
        ended_(vm, status);
    if (all_ended_ && workers_.empty()) {
        const auto done = all_ended_;
        return done();
    }
    refill_soon();
}

// They have been killed with it.
void Pool::on_lost(const std::string& reason) {
    lost_ = reason;
    last_error_ = reason;
    log_.error("the pool is of no more use", {kv("reason", reason)});
    fail_waiting(reason);
    while (!workers_.empty())
        on_ended(workers_.begin()->first, SIGKILL);
}

Result<> Pool::end_vm(const std::string& id) {
    const auto found = std::ranges::find_if(
        workers_, [&](const auto& entry) { return entry.second->vm.names.id == id; });
    if (found == workers_.end() || found->second->vm.state != WorkerState::Running)
        return fail("the pool runs no VM '{}'", id);
    end_worker(*found->second, "it was ended");
    return {};
}

void Pool::end(std::function<void()> done) {
    if (all_ended_)
        return;
    all_ended_ = std::move(done);
    fail_waiting("the pool is being ended");
    for (auto& [key, worker] : workers_)
        end_worker(*worker, "the pool is being ended");
    if (workers_.empty())
        loop_.post(all_ended_);
}

PoolCounts Pool::counts() const {
    return {.ready = count(WorkerState::Ready),
            .preparing = count(WorkerState::Preparing),
            .running = count(WorkerState::Running) + count(WorkerState::Launching),
            .ending = count(WorkerState::Ending),
            .waiting = waiting_.size(),
            .launched = launched_count_,
            .lost = lost_count_};
}

std::vector<PooledVm> Pool::vms() const {
    std::vector<PooledVm> result;
    for (const auto& [key, worker] : workers_)
        result.push_back(worker->vm);
    return result;
}

}  // namespace masu::pool
