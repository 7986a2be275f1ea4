// The monitor of one VM: holds its configuration, carries out actions, and decides what follows
// when the guest stops.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/event_loop.hpp"
#include "base/log.hpp"
#include "base/metrics.hpp"
#include "vmm/console.hpp"
#include "vmm/jail/jail.hpp"
#include "vmm/machine.hpp"
#include "vmm/metrics_file.hpp"
#include "vmm/panic_line.hpp"
#include "vmm/snapshot/lineage.hpp"
#include "vmm/snapshot/live_save.hpp"
#include "vmm/snapshot/own_drives.hpp"
#include "vmm/snapshot/read_ahead.hpp"
#include "vmm/vmm_action.hpp"
#include "vmm/vsock_host.hpp"

namespace masu {

// Exit statuses of the monitor's process.
enum class ExitStatus {
    Success = 0,
    Error = 1,
    GuestPanic = 3,
    TripleFault = 4,
    BadConfigFile = 152,
    BadArguments = 153,
};

// How a VM's life ended.
struct MonitorExit {
    ExitStatus status = ExitStatus::Error;
    std::string
        kind;  // "power-off", "reboot", "stopped", "panic", "reset-loop", "triple-fault", "error"
    std::string reason;  // one line for a person
};

using MachineFactory =
    std::function<Result<std::unique_ptr<Machine>>(const VmConfig& config, MachineContext context)>;

using MachineRestorer = std::function<Result<std::unique_ptr<Machine>>(
    const VmConfig& config, RestoreSource source, MachineContext context)>;

// What the monitor works with; everything outlives it.
struct MonitorServices {
    EventLoop& loop;
    const Clock& clock;
    Metrics& metrics;
    BootTimer& boot_timer;
    Console& console;
    MachineFactory create_machine;
    std::size_t metadata_limit = 51200;  // bytes of JSON
    MachineRestorer restore_machine;
    // The jail that the process is in already.
    jail::FilterMode filters = jail::FilterMode::Off;
    jail::Walls walls = {};
    // There: a snapshot::open_userfaultfd() made before the jail, in which none can be made.
    Result<Fd> page_faults = Fd();
    // Called once, when the VM has ended and its machine is gone. May be called from within
    // apply() and stop().
    std::function<void(const MonitorExit&)> ended;
    // The guest's memory is lost, and whoever waits for it waits for ever, perhaps the loop too:
    // ends the process. Any thread.
    std::function<void(std::string reason)> memory_lost = {};
};

// Loop thread.
class Monitor {
  public:
    // A guest that resets so soon after its start has failed to boot, and so has one that panicked.
    static constexpr Nanoseconds good_boot = 10'000'000'000;
    static constexpr unsigned max_failed_boots = 3;  // in a row; then the monitor ends

    // `initial` holds what is set from outside the API (id, transport). With `reboot` false the
    // first reset ends the monitor.
    Monitor(MonitorServices services, Log log, VmConfig initial, bool reboot);
    ~Monitor();
    Monitor(const Monitor&) = delete;
    Monitor& operator=(const Monitor&) = delete;

    // Carries out one action, or says in a sentence why not. A refused action changes nothing.
    [[nodiscard]] Result<VmmReply> apply(const VmmAction& action);

    // Stops the guest where it is; I/O in flight is completed. The exit status is 0.
    void stop(std::string reason);

    [[nodiscard]] VmState state() const noexcept { return state_; }

  private:
    // What a monitor has before it has a machine.
    struct Configured {
        VmConfig vm;
        std::unique_ptr<Network> network;
        std::unique_ptr<VsockHost> vsock;
    };
    struct Prepared;

    [[nodiscard]] Result<> check_allowed(Allowed allowed, std::string_view name) const;

    [[nodiscard]] Result<VmmReply> carry_out(const action::GetInstanceInfo& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::GetVersion& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::GetMachineConfig& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::GetVmConfig& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::GetMetrics& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::GetBootTimer& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::SetMachineConfig& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::PatchMachineConfig& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::SetBootSource& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::SetDrive& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::SetNetworkInterface& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::SetSecurityGroups& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::GetFirewall& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::SetFlowLog& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::SetMmdsConfig& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::SetInstanceMetadata& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::PutMmds& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::PatchMmds& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::GetMmds& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::SetEntropy& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::SetVsock& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::SetLogger& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::SetMetrics& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::SetSerial& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::StartInstance& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::PatchDrive& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::PatchNetworkInterface& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::CreateSnapshot& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::GetSaveProgress& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::LoadSnapshot& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::PrepareLoad& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::EndWorkingSet& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::Pause& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::Resume& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::FlushMetrics& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::SendCtrlAltDel& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::PressPowerButton& action);
    [[nodiscard]] Result<VmmReply> carry_out(const action::Stop& action);

    [[nodiscard]] Result<> check_metadata_reachable() const;
    [[nodiscard]] bool jailed() const noexcept {
        return services_.filters != jail::FilterMode::Off;
    }
    [[nodiscard]] Result<> create_machine();
    [[nodiscard]] MachineContext next_machine();
    void describe(snapshot::MachineState& state);
    [[nodiscard]] Result<std::vector<std::string>> take_config(const action::LoadSnapshot& action,
                                                               std::vector<VmmAction> settings,
                                                               snapshot::MadeFiles& made);
    [[nodiscard]] Result<> take_flows(std::vector<RestoredFirewall> firewalls,
                                      const action::LoadSnapshot& action,
                                      const std::vector<std::string>& readdressed);
    [[nodiscard]] Result<> check_may_load() const;
    [[nodiscard]] static Result<> check_memory_file(const action::LoadSnapshot& action);
    [[nodiscard]] Configured set_aside();
    [[nodiscard]] Configured exchange(Configured other);
    [[nodiscard]] Result<> make_machine(Prepared& prepared);
    [[nodiscard]] Result<> prepare(const action::LoadSnapshot& action);
    [[nodiscard]] bool is_prepared(const action::LoadSnapshot& action) const;
    [[nodiscard]] Result<> load(const action::LoadSnapshot& action);
    [[nodiscard]] Result<> gather_writes();
    [[nodiscard]] Result<snapshot::MemoryPlan> plan_memory(const action::CreateSnapshot& action);
    [[nodiscard]] Result<snapshot::MachineState> save_state();
    [[nodiscard]] Result<> save_paused(const action::CreateSnapshot& action);
    [[nodiscard]] Result<> begin_live_save(const action::CreateSnapshot& action);
    void note_saved(const action::CreateSnapshot& action, snapshot::MemoryForm form,
                    snapshot::SaveResult result);
    void end_live_save(const action::CreateSnapshot& action, Result<snapshot::SaveResult> result,
                       const PageSet& collected);
    [[nodiscard]] std::optional<snapshot::PageList> find_working_set(
        const action::LoadSnapshot& action, const snapshot::SnapshotId& id,
        std::uint64_t memory_bytes);
    [[nodiscard]] Result<> begin_recording();
    void look_whether_ready();
    [[nodiscard]] Result<> end_recording();
    [[nodiscard]] Result<> end_set_up();
    [[nodiscard]] Result<Fd> duplicate_page_faults() const;
    [[nodiscard]] Result<> start_machine();
    void drop_machine();
    void on_stopped(std::uint64_t generation, StopEvent event);
    void on_reset(StopEvent event);
    void end(MonitorExit exit);
    [[nodiscard]] MetricsReport collect_metrics() const;

    MonitorServices services_;
    Log log_;
    const bool reboot_;
    VmConfig vm_;
    std::unique_ptr<Network> network_;  // outlives machine_, whose devices use it
    std::unique_ptr<VsockHost> vsock_;  // so does this
    std::optional<LoggerConfig> logger_;
    std::optional<std::string> serial_out_path_;
    std::unique_ptr<MetricsFile> metrics_file_;
    VmState state_ = VmState::NotStarted;
    bool ended_ = false;
    unsigned failed_boots_ = 0;
    PanicLine panic_line_;
    // Told apart from its successor by its generation, should its last words come late.
    std::uint64_t generation_ = 0;
    Nanoseconds boot_start_ = 0;
    bool machine_started_ = false;
    std::unique_ptr<Machine> machine_;
    snapshot::Lineage lineage_;  // of the machine
    snapshot::SaveProgress last_save_;
    // Of the working set, of a machine that was just restored.
    struct Recording {
        std::string path;
        snapshot::SnapshotId snapshot;
        Nanoseconds length;
        Nanoseconds end = 0;  // since it runs
        std::optional<EventLoop::Timer> timer;
    };
    std::optional<Recording> recording_;
    // Made by PrepareLoad for the next LoadSnapshot. Ends with nothing left of it, the machine
    // first.
    struct Prepared {
        action::LoadSnapshot load;
        std::optional<snapshot::FileStamp> stamp;  // of the state that was read
        snapshot::SnapshotId id;
        snapshot::MadeFiles files;
        LentDescriptors descriptors;
        Configured configured;
        std::unique_ptr<Machine> machine;
    };
    std::optional<Prepared> prepared_;
    std::unique_ptr<snapshot::LiveSave> live_save_;  // after machine_, which it uses
};

}  // namespace masu
