// Loading snapshots: what can be made ahead of a load, and the load itself.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <type_traits>

#include "vmm/config_check.hpp"
#include "vmm/monitor.hpp"
#include "vmm/snapshot/load_changes.hpp"

namespace masu {

// The configuration travels as JSON and is taken as a config file is, so that whatever one can hold
// the other can. A logger or metrics file in there is the saving monitor's and not ours.
Result<std::vector<std::string>> Monitor::take_config(const action::LoadSnapshot& action,
                                                      std::vector<VmmAction> settings,
                                                      snapshot::MadeFiles& made) {
    auto readdressed = TRY(snapshot::change_config(settings, action));
    for (const auto& setting : settings) {
        TRY(std::visit(
            [this](const auto& wanted) -> Result<VmmReply> {
                using Wanted = std::remove_cvref_t<decltype(wanted)>;
                if constexpr (Wanted::allowed == Allowed::PreBoot ||
                              std::is_same_v<Wanted, action::SetInstanceMetadata>)
                    return carry_out(wanted);
                return Done{};
            },
            setting));
    }
    vm_.machine.track_dirty_pages = action.track_dirty_pages;
    for (const auto& change : action.drives)
        if (std::ranges::find(vm_.drives, change.drive_id, &DriveConfig::drive_id) ==
            vm_.drives.end())
            return fail("the snapshot's machine has no drive {}", change.drive_id);
    for (auto& drive : vm_.drives)
        snapshot::change_drive(drive, action);
    if (action.overlay_folder) {
        std::vector<std::string> given;
        for (const auto& change : action.drives)
            given.push_back(change.drive_id);
        TRY(snapshot::own_drives(vm_.drives, action.directory, *action.overlay_folder, given,
                                 made));
    }
    snapshot::expect_overlays(vm_.drives, made);
    TRY(check(vm_));
    return readdressed;
}

// Flows are those of connections that the guest has where it was saved: another machine, or one
// with another address, has none of them, and nobody may reach it through them.
Result<> Monitor::take_flows(std::vector<RestoredFirewall> firewalls,
                             const action::LoadSnapshot& action,
                             const std::vector<std::string>& readdressed) {
    for (auto& [id, firewall] : firewalls) {
        auto* interface = TRY(network_->require(id));
        if (action.identity || std::ranges::find(readdressed, id) != readdressed.end())
            TRY(interface->set_rules(nullptr));
        else
            interface->adopt_firewall(std::move(firewall));
    }
    return {};
}

// It only makes a restore faster: one that cannot be used is told of, and done without.
std::optional<snapshot::PageList> Monitor::find_working_set(const action::LoadSnapshot& action,
                                                            const snapshot::SnapshotId& id,
                                                            std::uint64_t memory_bytes) {
    const auto path = fmt::format("{}/{}", action.directory, snapshot::working_set_name);
    // A page fault handler knows best itself what to bring in first.
    if (action.directory.empty() || !action.use_working_set || action.record_working_set_ms ||
        !action.memory_handler.empty() || ::access(path.c_str(), F_OK) < 0)
        return std::nullopt;
    auto list = snapshot::load_page_list(path, snapshot::PageListKind::WorkingSet, memory_bytes);
    if (list && list->belongs_to != id)
        list = fail("the working set {} is of another snapshot", path);
    if (!list) {
        log_.warn("restoring without the working set", {kv("error", list.error().message)});
        return std::nullopt;
    }
    return *std::move(list);
}

// The load may have to be tried again.
Result<Fd> Monitor::duplicate_page_faults() const {
    if (!services_.page_faults)
        return std::unexpected(services_.page_faults.error());
    return services_.page_faults->duplicate();
}

Result<> Monitor::check_may_load() const {
    if (!services_.restore_machine)
        return fail("this monitor cannot load snapshots");
    if (!vm_.drives.empty() || !vm_.network_interfaces.empty() || vm_.boot_source || vm_.entropy ||
        vm_.vsock || vm_.mmds || vm_.metadata)
        return fail(
            "a snapshot brings its own configuration: load it into a monitor that has none");
    return {};
}

// Says why a directory without a memory file has none.
Result<> Monitor::check_memory_file(const action::LoadSnapshot& action) {
    if (action.directory.empty() || !action.memory_handler.empty() ||
        ::access(action.memory_path.c_str(), F_OK) == 0)
        return {};
    const auto own = fmt::format("{}/{}", action.directory, snapshot::own_memory_name);
    if (::access(own.c_str(), F_OK) == 0)
        return fail(
            "{} only holds the pages written since the snapshot below it, and cannot be restored "
            "as it is: make it whole first, with `masu snapshot collapse`",
            action.directory);
    const auto compressed =
        fmt::format("{}/{}", action.directory, snapshot::compressed_memory_name);
    if (::access(compressed.c_str(), F_OK) == 0)
        return fail(
            "the memory of {} is compressed: unpack it first, with `masu snapshot "
            "decompress`, or have it served, with mem_backend",
            action.directory);
    return {};
}

// What a monitor that was not configured is left with meanwhile.
Monitor::Configured Monitor::set_aside() {
    Configured before{
        .vm = vm_, .network = std::move(network_), .vsock = std::exchange(vsock_, nullptr)};
    network_ = std::make_unique<Network>(services_.metadata_limit);
    network_->store() = before.network->store();
    return before;
}

Monitor::Configured Monitor::exchange(Configured other) {
    Configured before{.vm = std::exchange(vm_, std::move(other.vm)),
                      .network = std::exchange(network_, std::move(other.network)),
                      .vsock = std::exchange(vsock_, std::move(other.vsock))};
    return before;
}

// The machine works with the network and the vsock that are the monitor's at this moment.
Result<> Monitor::make_machine(Prepared& prepared) {
    const auto& action = prepared.load;
    auto read = TRY(snapshot::read_state(action.state_path));
    prepared.stamp = read.stamp;
    prepared.id = read.id;
    RestoreSource source{
        .state = std::move(read.state),
        .memory_path = action.memory_path,
        .memory_handler = action.memory_handler,
        .clock = action.clock_realtime ? ClockPolicy::Realtime : ClockPolicy::Continue};
    // Before anything is opened: the flows may be anyone's bytes.
    auto firewalls = TRY(restore_firewalls(source.state.interfaces, services_.clock.now()));
    for (const auto& interface : action.interfaces) {
        if (interface.passt_fd)
            prepared.descriptors.lend(*interface.passt_fd);
        for (const int tap : interface.tap_fds)
            prepared.descriptors.lend(tap);
    }
    vm_.transport = source.state.transport;
    source.readdressed = TRY(take_config(action, std::move(read.settings), prepared.files));
    TRY(take_flows(std::move(firewalls), action, source.readdressed));
    // A document that was PUT here already is the newer one.
    if (!source.state.metadata.empty() && network_->store().document() == nullptr)
        TRY(network_->store().put(source.state.metadata));
    source.working_set = find_working_set(action, prepared.id, source.state.memory_bytes);
    if (jailed() && !action.memory_handler.empty())
        source.faults = TRY(duplicate_page_faults());
    prepared.machine = TRY(services_.restore_machine(vm_, std::move(source), next_machine()));
    return {};
}

Result<> Monitor::prepare(const action::LoadSnapshot& action) {
    TRY(check_may_load());
    TRY(check_memory_file(action));
    prepared_.reset();
    auto& prepared = prepared_.emplace();
    prepared.load = action;
    auto before = set_aside();
    const auto made = make_machine(prepared);
    prepared.configured = exchange(std::move(before));
    if (!made)
        prepared_.reset();
    return made;
}

Result<VmmReply> Monitor::carry_out(const action::PrepareLoad& action) {
    TRY(prepare(action.load));
    return Done{};
}

// Whether the load asks for what was prepared for it, and the snapshot is the same still.
bool Monitor::is_prepared(const action::LoadSnapshot& action) const {
    if (!prepared_)
        return false;
    auto wanted = action;
    wanted.resume = prepared_->load.resume;
    return wanted == prepared_->load && prepared_->stamp &&
           prepared_->stamp == snapshot::stamp_of(action.state_path);
}

Result<> Monitor::load(const action::LoadSnapshot& action) {
    TRY(machine_->restore_state());
    if (action.record_working_set_ms)
        recording_ = {.path = fmt::format("{}/{}", action.directory, snapshot::working_set_name),
                      .snapshot = prepared_->id,
                      .length = *action.record_working_set_ms * 1'000'000,
                      .timer = {}};
    Fd memory(::fcntl(machine_->ram().memfd(), F_DUPFD_CLOEXEC, 0));
    lineage_.begin_at(std::move(memory), prepared_->id,
                      action.directory.empty() ? action.state_path : action.directory,
                      machine_->ram().size() / guest_page);
    TRY(end_set_up());
    if (action.resume)
        return start_machine();
    return {};
}

// What fails leaves the monitor as it was, and nothing of the machine.
Result<VmmReply> Monitor::carry_out(const action::LoadSnapshot& action) {
    TRY(check_may_load());
    if (!is_prepared(action))
        TRY(prepare(action));
    auto before = exchange(std::move(prepared_->configured));
    machine_ = std::move(prepared_->machine);
    if (auto loaded = load(action); !loaded) {
        drop_machine();
        prepared_->configured = exchange(std::move(before));
        prepared_.reset();
        return std::unexpected(std::move(loaded).error());
    }
    prepared_->files.keep();
    prepared_->descriptors.keep();
    prepared_.reset();
    state_ = action.resume ? VmState::Running : VmState::Paused;
    log_.info("snapshot loaded", {kv("id", vm_.id), kv("path", action.state_path)});
    return Done{};
}

}  // namespace masu
