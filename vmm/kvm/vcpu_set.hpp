// The threads of a machine's vCPUs: started, paused, resumed and ended together.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/log.hpp"
#include "base/metrics.hpp"
#include "base/result.hpp"
#include "vmm/boot_timer.hpp"
#include "vmm/jail/thread_kind.hpp"
#include "vmm/kvm/exits.hpp"
#include "vmm/kvm/vcpu.hpp"

namespace masu::kvm {

enum class VcpuState { Created, Running, Paused, Finished };

// One thread per vCPU. Control methods belong to one thread (the event loop's), for which no exit
// handler may wait. Destruction stops and joins.
class VcpuSet {
  public:
    // Takes vCPUs (the boot processor first), and starts their threads, which wait in Created, each
    // behind its filter. Metrics and timer are borrowed.
    [[nodiscard]] static Result<std::unique_ptr<VcpuSet>> create(
        std::vector<Vcpu> vcpus, Metrics& metrics, BootTimer& boot_timer,
        jail::FilterMode filters = jail::FilterMode::Off);
    ~VcpuSet();
    VcpuSet(const VcpuSet&) = delete;
    VcpuSet& operator=(const VcpuSet&) = delete;

    // Once, before the first resume(). Borrowed. A thread that could not be confined says so now.
    void handle_exits(const ExitHandlers& handlers);
    // Created or Paused -> Running. Idempotent; nothing once Finished.
    void resume();
    // When it returns no vCPU is in the guest or in a handler, and every exit begun is completed:
    // registers and memory stay as they are until resume(). Idempotent.
    void pause();
    // Ends and joins all threads. Idempotent.
    void stop();

    [[nodiscard]] std::vector<VcpuState> states() const;
    [[nodiscard]] std::size_t size() const noexcept { return workers_.size(); }
    // Not while Running.
    [[nodiscard]] Vcpu& vcpu(std::size_t index) noexcept;

  private:
    struct Worker;
    enum class Order : std::uint8_t { Wait, Run, Finish };

    VcpuSet(Metrics& metrics, BootTimer& boot_timer, jail::FilterMode filters);
    void thread_main(Worker& worker);
    void run_until_ordered(Worker& worker);
    bool take_exit(Worker& worker, int error);
    void complete_exit(Worker& worker);
    void give_order(Order order);
    void finish_with(StopEvent event);

    const ExitHandlers* handlers_ = nullptr;
    ExitCounters counters_;
    BootTimer& boot_timer_;
    const jail::FilterMode filters_;
    mutable std::mutex mutex_;  // guards Worker::state; order_ changes only under it
    std::condition_variable changed_;
    std::atomic<Order> order_{Order::Wait};
    std::optional<StopEvent> early_stop_;  // of before handle_exits(); under mutex_
    std::atomic<bool> stop_reported_{false};
    std::vector<std::unique_ptr<Worker>> workers_;  // last: the threads end before the rest goes
};

}  // namespace masu::kvm
