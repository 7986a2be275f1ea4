// VMs of one snapshot made ahead: a launch takes one that is ready, and another is made behind it.
#pragma once

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/event_loop.hpp"
#include "base/log.hpp"
#include "base/result.hpp"
#include "vmm/pool/fork_server.hpp"
#include "vmm/pool/settings.hpp"
#include "vmm/vmm_action.hpp"

namespace masu::pool {

enum class WorkerState {
    Preparing,
    Ready,
    Launching,
    Running,
    Ending,
};
[[nodiscard]] std::string_view to_string(WorkerState state);

struct PooledVm {
    VmNames names;
    WorkerState state = WorkerState::Preparing;
    pid_t pid = 0;
    // Masu's control socket for this VM alone.
    [[nodiscard]] std::string api_socket() const { return names.folder + "/api.sock"; }
};

struct PoolCounts {
    std::uint64_t ready = 0;
    std::uint64_t preparing = 0;
    std::uint64_t running = 0;  // and being launched
    std::uint64_t ending = 0;
    std::uint64_t waiting = 0;   // launches that wait for a worker
    std::uint64_t launched = 0;  // so far
    std::uint64_t lost = 0;      // workers that ended before they were launched, so far
};

// What a worker is given beyond the settings, when it is begun: descriptors 4, 5, ... of its
// process.
using WorkerDescriptors = std::function<Result<std::vector<Fd>>(const VmNames& names)>;

// Loop thread. Workers are processes of their own: no step of a launch, and none of a VM's end,
// holds up the loop for longer than a few system calls.
class Pool {
  public:
    static constexpr std::size_t max_waiting = 4096;

    // Takes the folder and begins to fill. `host` outlives the pool and starts workers for it
    // alone.
    [[nodiscard]] static Result<std::unique_ptr<Pool>> create(EventLoop& loop, WorkerHost& host,
                                                              PoolSettings settings, Log log,
                                                              WorkerDescriptors descriptors = {});
    // Ends all VMs, by closing their sockets, and waits for none; see end().
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    // Lets a VM run: the one that has been ready longest or, if none is, the next that will be.
    // `requests` are asked of its control socket first, in order, with names put in. `done` is
    // called once the guest runs, perhaps within the call; after an error the VM is gone.
    void launch(std::vector<Request> requests, std::function<void(Result<PooledVm>)> done);
    // Ends a VM and deletes its folder, behind the caller's back.
    [[nodiscard]] Result<> end_vm(const std::string& id);
    // Begins to make what is missing now, and not settings().refill_delay after the last launch.
    void refill();
    // Ends all VMs, launches none any more, and calls `done` when every process and folder is gone.
    void end(std::function<void()> done);

    // `ended` hears of each VM that was launched when its process is gone; status is wait()'s.
    void on_end(std::function<void(const PooledVm&, int status)> ended) {
        ended_ = std::move(ended);
    }
    [[nodiscard]] PoolCounts counts() const;
    [[nodiscard]] std::vector<PooledVm> vms() const;
    [[nodiscard]] const PoolSettings& settings() const noexcept { return settings_; }
    // Why the last worker could not be made, while none has been since.
    [[nodiscard]] const std::string& last_error() const noexcept { return last_error_; }

  private:
    struct Launch {
        std::vector<Request> requests;
        std::function<void(Result<PooledVm>)> done;
    };
    struct Worker {
        std::uint64_t key = 0;
        PooledVm vm;
        bool launched = false;
        bool idle = false;  // has been asked all there is to ask for now
        std::unique_ptr<RequestChannel> channel;
        std::vector<Request> to_ask;  // the last one first
        std::optional<Launch> launch;
        std::optional<EventLoop::Timer> deadline;  // Ending
    };

    Pool(EventLoop& loop, WorkerHost& host, PoolSettings settings, Log log,
         WorkerDescriptors descriptors);
    [[nodiscard]] Result<> take_folder();
    void refill_soon();
    [[nodiscard]] bool may_prepare() const;
    [[nodiscard]] Result<> begin_worker();
    [[nodiscard]] Result<> start_worker(Worker& worker);
    [[nodiscard]] Result<std::vector<Fd>> make_channel(Worker& worker);
    [[nodiscard]] std::vector<std::string> arguments_for(const PooledVm& vm) const;
    [[nodiscard]] Result<jail::Options> jail_for(const PooledVm& vm);
    void ask_next(std::uint64_t key);
    void settle(Worker& worker);
    void assign(Worker& worker, Launch launch);
    void end_worker(Worker& worker, std::string reason);
    void note_failure(const std::string& reason);
    void fail_waiting(const std::string& reason);
    void forget(std::uint64_t key);
    void on_started(std::uint64_t key, pid_t pid);
    void on_ended(std::uint64_t key, int status);
    void on_lost(const std::string& reason);
    [[nodiscard]] std::size_t count(WorkerState state) const;

    EventLoop& loop_;
    WorkerHost& host_;
    const PoolSettings settings_;
    Log log_;
    WorkerDescriptors descriptors_;
    std::function<void(const PooledVm&, int status)> ended_;
    std::function<void()> all_ended_;  // set: no launches, no refill
    std::optional<std::string> lost_;  // the host is of no more use
    Fd folder_lock_;
    // Read once, so that a worker costs the loop little. Read again after a failure.
    struct SavedConfig {
        std::string state_path;
        std::vector<VmmAction> settings;
    };
    std::optional<SavedConfig> saved_config_;
    std::uint64_t next_key_ = 1;
    std::map<std::uint64_t, std::unique_ptr<Worker>> workers_;  // the oldest first
    std::set<unsigned> numbers_;
    std::list<Launch> waiting_;
    std::optional<EventLoop::Timer> refill_timer_;
    std::string last_error_;
    unsigned failures_in_a_row_ = 0;  // of making a worker; the next try waits for refill_timer_
    std::uint64_t launched_count_ = 0;
    std::uint64_t lost_count_ = 0;
};

}  // namespace masu::pool
