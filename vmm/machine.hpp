// One virtual machine: KVM, memory, vCPUs and devices, put together and taken apart.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/event_loop.hpp"
#include "base/log.hpp"
#include "base/metrics.hpp"
#include "base/result.hpp"
#include "vmm/boot_timer.hpp"
#include "vmm/config.hpp"
#include "vmm/jail/thread_kind.hpp"
#include "vmm/kvm/guest_ram.hpp"
#include "vmm/net/network.hpp"
#include "vmm/page_set.hpp"
#include "vmm/snapshot/machine_state.hpp"
#include "vmm/stop_event.hpp"
#include "vmm/vsock_host.hpp"

namespace masu {

// What a machine needs from its monitor; all of it outlives the machine.
struct MachineContext {
    EventLoop& loop;
    Log log;
    Metrics& metrics;
    BootTimer& boot_timer;
    Network& network;
    VsockHost* vsock = nullptr;  // where the configuration has a vsock
    // Serial output of the guest, as it comes. Loop thread.
    std::function<void(std::span<const std::byte>)> console_output;
    // Called once, on the loop's thread (posted), when the guest stopped. The machine may be
    // destroyed from within.
    std::function<void(StopEvent)> stopped;
    // Of a machine whose memory is served: snapshot::ServedMemory::Lost.
    std::function<void(std::string)> memory_lost = {};
    // Of the threads that the machine makes.
    jail::FilterMode filters = jail::FilterMode::Off;
};

// What happens to the guest's clocks (kvmclock and TSC) when it is restored.
enum class ClockPolicy {
    Continue,  // they go on where they stopped: no timer is late, and the wall clock is behind
    Realtime,  // they skip the time that has passed: the wall clock is right at once
};

// What to restore, beside the configuration. The memory file must not change while the VM lives.
struct RestoreSource {
    snapshot::MachineState state;
    std::string memory_path;
    // The socket of a page fault handler that brings memory in; then there is no memory_path.
    std::string memory_handler = {};
    Fd faults = {};  // snapshot::open_userfaultfd()'s, where that had to be opened before
    ClockPolicy clock = ClockPolicy::Continue;
    std::optional<snapshot::PageList> working_set;  // to bring in ahead of the guest
    // Interfaces whose guest has another address here, and is told to ask for it.
    std::vector<std::string> readdressed = {};
};

// Created stopped; start() lets the vCPUs run. Every method is called on the loop's thread.
// Destruction stops the vCPU threads, drains device I/O, and frees everything.
class Machine {
  public:
    // Opens files, allocates memory, loads the kernel. The config has been validated; errors name
    // the file and the remedy.
    [[nodiscard]] static Result<std::unique_ptr<Machine>> create(const VmConfig& config,
                                                                 MachineContext context);
    // A machine that is to go on from a snapshot. The config is the snapshot's but for what may
    // differ (paths, limits, the instance's id). VM, vCPUs, their threads and the devices are made,
    // files and sockets open; of memory there is only the place. Before anything else it is asked
    // to restore_state(); until then it may be dropped.
    [[nodiscard]] static Result<std::unique_ptr<Machine>> restore(const VmConfig& config,
                                                                  RestoreSource source,
                                                                  MachineContext context);
    virtual ~Machine() = default;

    // Once, of a machine of restore(): brings its memory in, and what was saved of devices and
    // vCPUs. Everything is in place afterwards but what time moves in vCPUs and clocks, which
    // start() sets; so this too may be done ahead of its time.
    [[nodiscard]] virtual Result<> restore_state() = 0;
    [[nodiscard]] virtual Result<> start() = 0;
    // Not while the vCPUs run (never started, or paused). The devices come to rest, and everything
    // but memory is read out; `config` of the state is left to the caller. Memory stays as it is
    // until the loop goes on.
    [[nodiscard]] virtual Result<snapshot::MachineState> save() = 0;
    [[nodiscard]] virtual const kvm::GuestRam& ram() const = 0;

    // Keeps a log of the pages that vCPUs and devices write to, or not any more (kvm::WriteLog). At
    // first: as the configuration's track_dirty_pages says.
    [[nodiscard]] virtual Result<> log_writes(bool on) = 0;
    [[nodiscard]] virtual bool logs_writes() const = 0;
    // Adds the pages written since the last time to a set of all pages of ram(). Any one thread at
    // a time, also while the guest runs. A page copied afterwards is up to date or will be
    // collected again. After an error only a whole save is right.
    [[nodiscard]] virtual Result<> collect_writes(PageSet& into) = 0;

    // Stops all vCPUs (each has acknowledged when this returns) / lets them go on. Idempotent.
    [[nodiscard]] virtual Result<> pause() = 0;
    [[nodiscard]] virtual Result<> resume() = 0;

    virtual void press_power_button() = 0;
    virtual void send_ctrl_alt_del() = 0;
    // Keys for COM1; what does not fit the device's queue is dropped, and the number taken
    // returned.
    virtual std::size_t console_input(std::span<const std::byte> bytes) = 0;

    // PATCH /drives: another path (re-opened; its size is announced to the guest), or only the
    // present file's size looked at again (path empty); and limits.
    [[nodiscard]] virtual Result<> update_drive(const std::string& drive_id,
                                                const std::string& path) = 0;
    [[nodiscard]] virtual Result<> update_drive_limits(const std::string& drive_id,
                                                       const RateLimiterConfig& limits) = 0;
    // PATCH /network-interfaces: the buckets given replace the present ones.
    [[nodiscard]] virtual Result<> update_network_limits(const std::string& iface_id,
                                                         const RateLimiterConfig& rx,
                                                         const RateLimiterConfig& tx) = 0;
};

}  // namespace masu
