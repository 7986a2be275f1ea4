// A process with one thread that forks monitors, so that a process with many threads, or with KVM
// open, can have them without exec.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/event_loop.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"

namespace masu::pool {

// What starts the processes of a pool's VMs. The number is the caller's and never used twice.
class WorkerHost {
  public:
    struct Events {
        std::function<void(std::uint64_t worker, pid_t pid)> started;
        // `status` is wait()'s. Also of one that could not be started: 127.
        std::function<void(std::uint64_t worker, int status)> ended;
        // No worker is left, and there will be no other.
        std::function<void(std::string reason)> lost;
    };
    virtual ~WorkerHost() = default;
    // Loop thread, from within the loop; before the first start().
    virtual void listen(Events events) = 0;
    // masu-vmm with these arguments; the descriptors are its 3, 4, ...
    [[nodiscard]] virtual Result<> start(std::uint64_t worker,
                                         const std::vector<std::string>& arguments,
                                         std::span<const Fd> descriptors) = 0;
    virtual void kill(std::uint64_t worker) = 0;
};

inline constexpr std::size_t max_worker_descriptors = 16;

// Loop thread. When it is destroyed, or its process ends in any way, the workers' process sees the
// end of the socket between them, gives its workers some seconds to end by themselves, and kills
// those that have not.
class ForkServer final : public WorkerHost {
  public:
    // `program`: the path of masu-vmm.
    [[nodiscard]] static Result<std::unique_ptr<ForkServer>> start(EventLoop& loop,
                                                                   const std::string& program);
    ~ForkServer() override;
    ForkServer(const ForkServer&) = delete;
    ForkServer& operator=(const ForkServer&) = delete;

    void listen(Events events) override { events_ = std::move(events); }
    [[nodiscard]] Result<> start(std::uint64_t worker, const std::vector<std::string>& arguments,
                                 std::span<const Fd> descriptors) override;
    void kill(std::uint64_t worker) override;
    // Of the process that forks.
    [[nodiscard]] pid_t pid() const noexcept { return pid_; }

  private:
    explicit ForkServer(Fd socket, pid_t pid) : socket_(std::move(socket)), pid_(pid) {}
    void read_events();

    Fd socket_;
    pid_t pid_;
    Events events_;
    EventLoop::Watch watch_;
};

// The other side: forks at the word of `socket` until that is closed and the children have ended.
// SIGTERM, SIGINT and SIGHUP are blocked already and stay so. `child_main` runs in the child, whose
// exit status it returns; the child gets SIGKILL when the process that calls this ends.
[[nodiscard]] Result<> serve_forks(
    Fd socket, const std::function<int(std::span<std::string> arguments)>& child_main);

}  // namespace masu::pool
