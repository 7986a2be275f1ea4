#include "vmm/kvm/vcpu_set.hpp"

#include <algorithm>
#include <system_error>
#include <thread>
#include <utility>

#include "vmm/jail/jail.hpp"

namespace masu::kvm {

struct VcpuSet::Worker {
    explicit Worker(Vcpu cpu) : vcpu(std::move(cpu)) {}
    Vcpu vcpu;
    VcpuState state = VcpuState::Created;
    std::jthread thread;
};

namespace {

StopEvent run_failure(unsigned index, int error) {
    if (error == EFAULT || error == ENOMEM)
        return {StopKind::Error,
                fmt::format("the host could not give vCPU {} a page of guest memory ({}): the host "
                            "or its cgroup is out of memory or huge pages",
                            index, std::strerror(error))};
    return {StopKind::Error,
            fmt::format("KVM cannot run vCPU {}: {}", index, std::strerror(error))};
}

}  // namespace

Result<std::unique_ptr<VcpuSet>> VcpuSet::create(std::vector<Vcpu> vcpus, Metrics& metrics,
                                                 BootTimer& boot_timer, jail::FilterMode filters) {
    install_kick_handler();
    std::unique_ptr<VcpuSet> set(new VcpuSet(metrics, boot_timer, filters));
    for (auto& vcpu : vcpus)
        set->workers_.push_back(std::make_unique<Worker>(std::move(vcpu)));
    for (auto& worker : set->workers_) {
        try {
            worker->thread =
                std::jthread([&set = *set, &worker = *worker] { set.thread_main(worker); });
        } catch (const std::system_error& error) {
            return fail("cannot start a thread for vCPU {}: {}", worker->vcpu.index(),
                        error.what());
        }
    }
    return set;
}

VcpuSet::VcpuSet(Metrics& metrics, BootTimer& boot_timer, jail::FilterMode filters)
    : counters_(metrics), boot_timer_(boot_timer), filters_(filters) {}

VcpuSet::~VcpuSet() {
    stop();
}

void VcpuSet::thread_main(Worker& worker) {
    prepare_vcpu_thread(worker.vcpu.index());
    if (const auto jailed = jail::enter_thread(jail::ThreadKind::Vcpu, filters_); !jailed)
        finish_with({StopKind::Error, jailed.error().message});
    std::unique_lock lock(mutex_);
    for (;;) {
        changed_.wait(lock, [this] { return order_ != Order::Wait; });
        if (order_ == Order::Finish)
            break;
        if (worker.state == VcpuState::Paused)
            worker.vcpu.excuse_pause();
        worker.state = VcpuState::Running;
        lock.unlock();
        run_until_ordered(worker);
        lock.lock();
        worker.state = VcpuState::Paused;
        changed_.notify_all();
    }
    worker.state = VcpuState::Finished;
    changed_.notify_all();
}

// Whoever gives an order stores it before kicking, and here the kick is cleared before the order is
// read: a kick may be spent in vain, an order is never missed.
void VcpuSet::run_until_ordered(Worker& worker) {
    auto& vcpu = worker.vcpu;
    if (vcpu.index() == 0)
        boot_timer_.mark(Milestone::FirstInstruction);
    vcpu.clear_kick();
    while (order_ == Order::Run) {
        const int error = vcpu.run();
        if (error == EINTR || error == EAGAIN) {  // a kick; an AP that has got its INIT
            counters_.interrupted.add();
            vcpu.clear_kick();
        } else if (!take_exit(worker, error)) {
            return;
        }
    }
    complete_exit(worker);
}

bool VcpuSet::take_exit(Worker& worker, int error) {
    if (error != 0) {
        finish_with(run_failure(worker.vcpu.index(), error));
        return false;
    }
    boot_timer_.mark(Milestone::KernelEntry);
    if (auto stop = handle_exit(worker.vcpu.state(), worker.vcpu.page(), *handlers_, counters_)) {
        finish_with(std::move(*stop));
        return false;
    }
    return true;
}

// KVM finishes a port or MMIO instruction at the next KVM_RUN; until then the registers are those
// of half an instruction.
void VcpuSet::complete_exit(Worker& worker) {
    int error = 0;
    do {
        worker.vcpu.expect_exit();
        error = worker.vcpu.run();
    } while (error == 0 && take_exit(worker, 0));
    worker.vcpu.clear_kick();
}

void VcpuSet::finish_with(StopEvent event) {
    give_order(Order::Finish);
    if (stop_reported_.exchange(true))
        return;
    {
        const std::lock_guard lock(mutex_);
        if (handlers_ == nullptr) {
            early_stop_ = std::move(event);
            return;
        }
    }
    if (handlers_->stop)
        handlers_->stop(std::move(event));
}

// resume() gives the threads the mutex after this, and with it the handlers.
void VcpuSet::handle_exits(const ExitHandlers& handlers) {
    std::optional<StopEvent> early;
    {
        const std::lock_guard lock(mutex_);
        handlers_ = &handlers;
        early = std::exchange(early_stop_, std::nullopt);
    }
    if (early && handlers.stop)
        handlers.stop(std::move(*early));
}

void VcpuSet::give_order(Order order) {
    {
        const std::lock_guard lock(mutex_);
        if (order_ == Order::Finish)
            return;
        order_ = order;
    }
    changed_.notify_all();
    if (order == Order::Run)
        return;
    for (auto& worker : workers_) {
        if (worker->thread.joinable())
            worker->vcpu.kick(worker->thread.native_handle());
    }
}

void VcpuSet::resume() {
    give_order(Order::Run);
}

void VcpuSet::pause() {
    give_order(Order::Wait);
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] {
        return std::none_of(workers_.begin(), workers_.end(),
                            [](const auto& worker) { return worker->state == VcpuState::Running; });
    });
}

void VcpuSet::stop() {
    give_order(Order::Finish);
    for (auto& worker : workers_) {
        if (worker->thread.joinable())
            worker->thread.join();
    }
}

std::vector<VcpuState> VcpuSet::states() const {
    const std::lock_guard lock(mutex_);
    std::vector<VcpuState> states;
    for (const auto& worker : workers_)
        states.push_back(worker->state);
    return states;
}

Vcpu& VcpuSet::vcpu(std::size_t index) noexcept {
    return workers_[index]->vcpu;
}

}  // namespace masu::kvm
