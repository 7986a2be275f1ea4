// Making and loading snapshots.
#include <algorithm>
#include <type_traits>

#include "vmm/api/bodies.hpp"
#include "vmm/api/config_file.hpp"
#include "vmm/config_check.hpp"
#include "vmm/monitor.hpp"
#include "vmm/snapshot/save.hpp"

namespace masu {

Result<VmmReply> Monitor::carry_out(const action::CreateSnapshot& action) {
    if (state_ != VmState::Paused)
        return fail("the VM runs; pause it first: PATCH /vm {{\"state\": \"Paused\"}}");
    if (!vm_.network_interfaces.empty())
        return fail(
            "the VM has a network interface, whose connections a snapshot does not hold yet; save "
            "one that was started with `masu run --net none`");
    auto state = TRY(machine_->save());
    api::JsonWriter json;
    api::write(json, FullConfig{.vm = vm_});
    state.config = json.text();
    const auto started = services_.clock.now();
    const auto saved = action.directory
                           ? TRY(snapshot::save_directory(state, machine_->ram(), vm_,
                                                          *action.directory, action.metadata))
                           : TRY(snapshot::save_files(state, machine_->ram(), action.state_path,
                                                      action.memory_path));
    log_.info("snapshot made", {kv("path", action.directory.value_or(action.state_path)),
                                kv("memory_stored", saved.memory_stored),
                                kv("milliseconds", (services_.clock.now() - started) / 1'000'000)});
    return Done{};
}

// The configuration travels as JSON and is taken as a config file is, so that whatever one can hold
// the other can. A logger or metrics file in there is the saving monitor's and not ours.
Result<> Monitor::take_config(const action::LoadSnapshot& action,
                              const snapshot::MachineState& state) {
    vm_.transport = state.transport;
    for (const auto& setting : TRY(api::parse_config(state.config, "of the snapshot"))) {
        TRY(std::visit(
            [this](const auto& wanted) -> Result<VmmReply> {
                if constexpr (std::remove_cvref_t<decltype(wanted)>::allowed == Allowed::PreBoot)
                    return carry_out(wanted);
                return Done{};
            },
            setting));
    }
    vm_.machine.track_dirty_pages = action.track_dirty_pages;
    for (const auto& change : action.drives) {
        const auto drive = std::ranges::find(vm_.drives, change.drive_id, &DriveConfig::drive_id);
        if (drive == vm_.drives.end())
            return fail("the snapshot's machine has no drive {}", change.drive_id);
        if (change.path_on_host)
            drive->path_on_host = *change.path_on_host;
        if (change.overlay_path)
            drive->overlay_path = change.overlay_path;
    }
    return check(vm_);
}

Result<> Monitor::load(const action::LoadSnapshot& action) {
    RestoreSource source{
        .state = TRY(snapshot::load_state(action.state_path)),
        .memory_path = action.memory_path,
        .clock = action.clock_realtime ? ClockPolicy::Realtime : ClockPolicy::Continue};
    TRY(take_config(action, source.state));
    machine_ = TRY(services_.restore_machine(vm_, std::move(source), next_machine()));
    if (action.resume)
        return start_machine();
    return {};
}

Result<VmmReply> Monitor::carry_out(const action::LoadSnapshot& action) {
    if (!services_.restore_machine)
        return fail("this monitor cannot load snapshots");
    if (!vm_.drives.empty() || vm_.boot_source || vm_.entropy)
        return fail(
            "a snapshot brings its own configuration: load it into a monitor that has none");
    const auto before = vm_;
    if (auto loaded = load(action); !loaded) {
        drop_machine();
        vm_ = before;
        return std::unexpected(std::move(loaded).error());
    }
    state_ = action.resume ? VmState::Running : VmState::Paused;
    log_.info("snapshot loaded", {kv("id", vm_.id), kv("path", action.state_path)});
    return Done{};
}

}  // namespace masu
