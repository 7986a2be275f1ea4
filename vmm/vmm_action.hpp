// The closed list of what can be asked of a monitor, and when. The HTTP routes and the config file
// produce these; the monitor alone carries them out.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/clock.hpp"
#include "base/metrics.hpp"
#include "devices/net/firewall/firewall.hpp"
#include "vmm/boot_timer.hpp"
#include "vmm/config.hpp"
#include "vmm/net/flow_log_writer.hpp"
#include "vmm/snapshot/save_progress.hpp"

namespace masu {

enum class VmState { NotStarted, Running, Paused };
[[nodiscard]] constexpr std::string_view to_string(VmState state) {
    constexpr std::array<std::string_view, 3> names{"Not started", "Running", "Paused"};
    return names[static_cast<std::size_t>(state)];
}

enum class Allowed { Always, PreBoot, PostBoot };

struct LoggerConfig {
    std::optional<std::string> log_path;
    std::optional<std::string> level;
};

struct MetricsConfig {
    std::string metrics_path;
    bool emit_id = false;
    std::map<std::string, std::string> properties;
};

namespace action {

struct GetInstanceInfo {
    static constexpr auto allowed = Allowed::Always;
    static constexpr std::string_view name = "reading the instance information";
};
struct GetVersion {
    static constexpr auto allowed = Allowed::Always;
    static constexpr std::string_view name = "reading the version";
};
struct GetMachineConfig {
    static constexpr auto allowed = Allowed::Always;
    static constexpr std::string_view name = "reading the machine configuration";
};
struct GetVmConfig {
    static constexpr auto allowed = Allowed::Always;
    static constexpr std::string_view name = "reading the configuration";
};
struct GetMetrics {
    static constexpr auto allowed = Allowed::Always;
    static constexpr std::string_view name = "reading the metrics";
};
struct GetBootTimer {
    static constexpr auto allowed = Allowed::Always;
    static constexpr std::string_view name = "reading the boot timer";
};

// Replaces the whole machine configuration.
struct SetMachineConfig {
    static constexpr auto allowed = Allowed::PreBoot;
    static constexpr std::string_view name = "changing the machine configuration";
    MachineConfig config;
};
// Changes what is given; at least one member is.
struct PatchMachineConfig {
    static constexpr auto allowed = Allowed::PreBoot;
    static constexpr std::string_view name = "changing the machine configuration";
    std::optional<unsigned> vcpu_count;
    std::optional<std::uint64_t> mem_size_mib;
    std::optional<bool> smt;
    std::optional<bool> track_dirty_pages;
    std::optional<HugePages> huge_pages;
    std::optional<CpuTemplate> cpu_template;
};
struct SetBootSource {
    static constexpr auto allowed = Allowed::PreBoot;
    static constexpr std::string_view name = "setting the boot source";
    BootSource source;
};
// Adds a drive or, when the id is there already, replaces it in its place.
struct SetDrive {
    static constexpr auto allowed = Allowed::PreBoot;
    static constexpr std::string_view name = "adding a drive";
    DriveConfig drive;
};
// Adds an interface or replaces the one of that id; its backend is opened at once.
struct SetNetworkInterface {
    static constexpr auto allowed = Allowed::PreBoot;
    static constexpr std::string_view name = "adding a network interface";
    NetworkInterfaceConfig interface;
};
// The rules of an interface, whole. From the first time on, nothing passes it without one.
struct SetSecurityGroups {
    static constexpr auto allowed = Allowed::Always;
    static constexpr std::string_view name = "setting the security groups";
    std::string iface_id;
    std::vector<std::string> groups;  // ids, to show
    std::shared_ptr<const net::CompiledRules> rules;
};
struct GetFirewall {
    static constexpr auto allowed = Allowed::Always;
    static constexpr std::string_view name = "reading the firewall's counters";
    std::string iface_id;
};
struct SetFlowLog {
    static constexpr auto allowed = Allowed::Always;
    static constexpr std::string_view name = "setting the flow log";
    std::string iface_id;
    FlowLogConfig config;
};
struct SetMmdsConfig {
    static constexpr auto allowed = Allowed::PreBoot;
    static constexpr std::string_view name = "configuring the metadata service";
    MmdsConfig config;
};
// Replaces all of it; the interfaces that serve it are settled once the instance has started.
struct SetInstanceMetadata {
    static constexpr auto allowed = Allowed::Always;
    static constexpr std::string_view name = "setting the instance metadata";
    InstanceMetadataConfig config;
};
// The document of the metadata service. Once started, only where the service is configured.
struct PutMmds {
    static constexpr auto allowed = Allowed::Always;
    static constexpr std::string_view name = "setting the metadata";
    std::string json;
};
struct PatchMmds {  // RFC 7396
    static constexpr auto allowed = Allowed::Always;
    static constexpr std::string_view name = "changing the metadata";
    std::string json;
};
struct GetMmds {
    static constexpr auto allowed = Allowed::Always;
    static constexpr std::string_view name = "reading the metadata";
};
struct SetEntropy {
    static constexpr auto allowed = Allowed::PreBoot;
    static constexpr std::string_view name = "adding the entropy device";
    EntropyConfig entropy;
};
// Its socket is bound at once; a second time replaces the first.
struct SetVsock {
    static constexpr auto allowed = Allowed::PreBoot;
    static constexpr std::string_view name = "adding the vsock device";
    VsockConfig vsock;
};
struct SetLogger {
    static constexpr auto allowed = Allowed::PreBoot;
    static constexpr std::string_view name = "setting the logger";
    LoggerConfig logger;
};
// Once; a second time is refused.
struct SetMetrics {
    static constexpr auto allowed = Allowed::PreBoot;
    static constexpr std::string_view name = "setting the metrics file";
    MetricsConfig metrics;
};
// The guest's serial output also goes to this file.
struct SetSerial {
    static constexpr auto allowed = Allowed::PreBoot;
    static constexpr std::string_view name = "setting the serial output";
    std::optional<std::string> serial_out_path;
};
struct StartInstance {
    static constexpr auto allowed = Allowed::PreBoot;
    static constexpr std::string_view name = "starting the instance";
};

// path_on_host: the drive is re-opened there. rate_limiter: its buckets replace the drive's, absent
// ones stay. Neither: the file's size is looked at again.
struct PatchDrive {
    static constexpr auto allowed = Allowed::PostBoot;
    static constexpr std::string_view name = "changing a drive";
    std::string drive_id;
    std::optional<std::string> path_on_host;
    std::optional<RateLimiterConfig> rate_limiter;
};
// The buckets given replace the interface's, absent ones stay.
struct PatchNetworkInterface {
    static constexpr auto allowed = Allowed::PostBoot;
    static constexpr std::string_view name = "changing a network interface";
    std::string iface_id;
    RateLimiterConfig rx_rate_limiter;
    RateLimiterConfig tx_rate_limiter;
};
// A snapshot of the paused VM: into a directory of ours, or into two files, disks left alone.
struct CreateSnapshot {
    static constexpr auto allowed = Allowed::PostBoot;
    static constexpr std::string_view name = "making a snapshot";
    std::optional<std::string> directory;
    std::string metadata;     // the caller's own, kept in the directory's manifest word for word
    std::string state_path;   // without a directory
    std::string memory_path;  // without a directory
    // Only the pages written since the last snapshot: with two files nothing else is in the memory
    // file; in a directory they go over a copy of that snapshot's, unless own_pages says otherwise.
    bool diff = false;
    bool own_pages = false;
    // Into a directory, of the running VM: answered at once, done when SaveProgress says so.
    bool live = false;
};
// Of the latest save.
struct GetSaveProgress {
    static constexpr auto allowed = Allowed::Always;
    static constexpr std::string_view name = "reading how a save gets on";
};
// Makes the VM of a snapshot, paused or running. The configuration is the snapshot's, with the
// changes given here.
struct LoadSnapshot {
    static constexpr auto allowed = Allowed::PreBoot;
    static constexpr std::string_view name = "loading a snapshot";
    struct Drive {
        std::string drive_id;
        std::optional<std::string> path_on_host;
        std::optional<std::string> overlay_path;
        bool operator==(const Drive&) const = default;
    };
    std::string directory;  // of both; or empty
    // An interface's backend here, and what the guest is told of its network. What is not given
    // stays as it was saved; a backend that was a descriptor must be given.
    struct Interface {
        std::string iface_id;
        std::string host_dev_name;
        std::vector<int> tap_fds;
        std::optional<int> passt_fd;
        std::optional<std::string> network_mac;  // absent: see Identity
        // Another address is announced to the guest by its link going down and up again.
        std::optional<GuestNetworkConfig> guest_network;
        bool operator==(const Interface&) const = default;
    };
    // Another machine than the one that was saved: its metadata and DHCP say so, and the firewall
    // does not know the connections of the one that was saved. On the network it has MACs of its
    // own, made from the instance id where none is given.
    struct Identity {
        std::string instance_id;
        std::string hostname;
        bool operator==(const Identity&) const = default;
    };
    std::string state_path;
    std::string memory_path;
    std::string memory_handler;  // a page fault handler's socket, in place of memory_path
    bool resume = false;
    bool track_dirty_pages = false;
    bool clock_realtime = false;  // ClockPolicy::Realtime
    // Of a directory: bring the pages in that its working-set file lists, if it has one.
    bool use_working_set = true;
    // Of a directory: write that file anew, when the guest or EndWorkingSet says that it is ready,
    // or so many milliseconds after it was let run.
    std::optional<std::uint64_t> record_working_set_ms;
    std::vector<Drive> drives;
    // Of a directory: drives that can change, but for those given here, get overlays of their own
    // in this folder (snapshot::own_drives()).
    std::optional<std::string> overlay_folder;
    std::vector<Interface> interfaces;
    std::optional<std::string> uds_path;  // of the vsock here
    std::optional<Identity> identity;
    bool operator==(const LoadSnapshot&) const = default;
};
// Does ahead what a load of the same snapshot can have done before the VM is wanted: reads its
// state, checks it against this host, and makes the machine, all but its memory and what was saved
// of it. The load that follows takes it, unless it asks for another or the file has changed since.
struct PrepareLoad {
    static constexpr auto allowed = Allowed::PreBoot;
    static constexpr std::string_view name = "preparing to load a snapshot";
    LoadSnapshot load;
};
// The guest is ready: what it has touched by now is its working set.
struct EndWorkingSet {
    static constexpr auto allowed = Allowed::PostBoot;
    static constexpr std::string_view name = "ending the record of the working set";
};
struct Pause {
    static constexpr auto allowed = Allowed::PostBoot;
    static constexpr std::string_view name = "pausing";
};
struct Resume {
    static constexpr auto allowed = Allowed::PostBoot;
    static constexpr std::string_view name = "resuming";
};
struct FlushMetrics {
    static constexpr auto allowed = Allowed::PostBoot;
    static constexpr std::string_view name = "flushing the metrics";
};
struct SendCtrlAltDel {
    static constexpr auto allowed = Allowed::PostBoot;
    static constexpr std::string_view name = "sending Ctrl-Alt-Del";
};
struct PressPowerButton {
    static constexpr auto allowed = Allowed::PostBoot;
    static constexpr std::string_view name = "pressing the power button";
};
// Ends the monitor: the guest is stopped where it is, and the I/O in flight completed.
struct Stop {
    static constexpr auto allowed = Allowed::Always;
    static constexpr std::string_view name = "stopping";
};

}  // namespace action

using VmmAction = std::variant<
    action::GetInstanceInfo, action::GetVersion, action::GetMachineConfig, action::GetVmConfig,
    action::GetMetrics, action::GetBootTimer, action::SetMachineConfig, action::PatchMachineConfig,
    action::SetBootSource, action::SetDrive, action::SetNetworkInterface, action::SetSecurityGroups,
    action::GetFirewall, action::SetFlowLog, action::SetMmdsConfig, action::SetInstanceMetadata,
    action::PutMmds, action::PatchMmds, action::GetMmds, action::SetEntropy, action::SetVsock,
    action::SetLogger, action::SetMetrics, action::SetSerial, action::StartInstance,
    action::PatchDrive, action::PatchNetworkInterface, action::CreateSnapshot,
    action::GetSaveProgress, action::LoadSnapshot, action::PrepareLoad, action::EndWorkingSet,
    action::Pause, action::Resume, action::FlushMetrics, action::SendCtrlAltDel,
    action::PressPowerButton, action::Stop>;

// What an action answers. Done: carried out, nothing to tell.
struct Done {};
struct InstanceInfo {
    std::string id;
    VmState state = VmState::NotStarted;
    std::vector<std::string> jail = {};  // what confines the monitor; empty: nothing
};
struct VersionInfo {};
struct FullConfig {
    VmConfig vm;
    std::optional<LoggerConfig> logger;
    std::optional<MetricsConfig> metrics;
    std::optional<std::string> serial_out_path;
    bool secrets = false;  // with what only the guest is to read: user data, credentials
};
struct FirewallReport {
    std::vector<std::string> groups;
    std::uint64_t flows = 0;
    std::uint64_t flow_memory = 0;  // bytes
    net::FirewallCounters counters;
    std::vector<net::RuleCount> rules;
};
// A JSON text.
struct JsonText {
    std::string text;
};
// All counters, as totals since the process started.
struct MetricsReport {
    std::uint64_t wall_time = 0;  // nanoseconds since 1970
    std::vector<Metrics::Sample> samples;
};
// Nanoseconds since ProcessStart, by Milestone; absent ones are not reached yet.
struct BootTimes {
    std::array<std::optional<Nanoseconds>, milestone_count> since_start;
};

using VmmReply =
    std::variant<Done, InstanceInfo, VersionInfo, MachineConfig, FullConfig, MetricsReport,
                 BootTimes, FirewallReport, JsonText, snapshot::SaveProgress>;

}  // namespace masu
