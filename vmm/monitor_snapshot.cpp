// Making and loading snapshots.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <type_traits>

#include "base/atomic_file.hpp"
#include "vmm/api/bodies.hpp"
#include "vmm/api/config_file.hpp"
#include "vmm/config_check.hpp"
#include "vmm/monitor.hpp"
#include "vmm/snapshot/load_changes.hpp"
#include "vmm/snapshot/memory_file.hpp"
#include "vmm/snapshot/own_drives.hpp"
#include "vmm/snapshot/save.hpp"
#include "vmm/snapshot/working_set.hpp"

namespace masu {

// What the guest and its devices wrote since the snapshots the lineage names. Without a log, the
// pages this process has of its own say it, of a machine that was restored.
Result<> Monitor::gather_writes() {
    if (machine_->logs_writes()) {
        PageSet fresh(machine_->ram().size() / guest_page);
        if (auto collected = machine_->collect_writes(fresh); !collected) {
            lineage_ = {};
            return collected;
        }
        lineage_.add(fresh);
    } else if (lineage_.parent) {
        lineage_.add(snapshot::touched_pages(machine_->ram()));
    }
    return {};
}

Result<snapshot::MemoryPlan> Monitor::plan_memory(const action::CreateSnapshot& action) {
    snapshot::MemoryPlan plan;
    if (!action.diff)
        return plan;
    if (action.own_pages && !lineage_.parent)
        return fail(
            "nothing is known of what was written since a snapshot: the VM was neither restored "
            "from one, nor saved before while track_dirty_pages was on; save it whole first");
    if (action.own_pages)
        plan = {.form = snapshot::MemoryForm::OwnPages, .pages = &lineage_.since_parent};
    else if (lineage_.base)
        plan = {.form = snapshot::MemoryForm::OnBase,
                .base = lineage_.base.get(),
                .pages = &lineage_.since_base};
    plan.parent = lineage_.parent;
    plan.parent_path = lineage_.parent_path;
    return plan;
}

Result<snapshot::MachineState> Monitor::save_state() {
    auto state = TRY(machine_->save());
    describe(state);
    return state;
}

// The latest snapshot is what the next difference is to. Without a log, that stays what the machine
// was restored from.
void Monitor::note_saved(const action::CreateSnapshot& action, snapshot::MemoryForm form,
                         snapshot::SaveResult result) {
    if (!machine_->logs_writes())
        return;
    const auto pages = machine_->ram().size() / guest_page;
    if (action.directory && form != snapshot::MemoryForm::OwnPages) {
        lineage_.begin_at(std::move(result.memory), result.id, *action.directory, pages);
        return;
    }
    if (!action.directory)
        lineage_.base.reset();  // its file is the caller's, to merge differences into
    lineage_.parent = result.id;
    lineage_.parent_path = action.directory.value_or(action.state_path);
    lineage_.since_parent = PageSet(pages);
}

Result<> Monitor::save_paused(const action::CreateSnapshot& action) {
    const auto state = TRY(save_state());
    TRY(gather_writes());
    const auto plan = TRY(plan_memory(action));
    const auto started = services_.clock.now();
    const auto& ram = machine_->ram();
    auto saved = [&]() -> Result<snapshot::SaveResult> {
        if (action.directory)
            return snapshot::save_directory(state, ram, vm_, *action.directory, action.metadata,
                                            plan);
        if (!action.diff)
            return snapshot::save_files(state, ram, action.state_path, action.memory_path);
        const auto pages = lineage_.parent ? lineage_.since_parent : snapshot::touched_pages(ram);
        return snapshot::save_files(state, ram, action.state_path, action.memory_path, &pages);
    }();
    last_save_ = {.state = saved ? snapshot::SaveState::Done : snapshot::SaveState::Failed,
                  .form = plan.form,
                  .took = services_.clock.now() - started,
                  .error = saved ? std::string() : saved.error().message};
    if (!saved)
        return std::unexpected(std::move(saved).error());
    last_save_.memory_stored = saved->memory_stored;
    last_save_.memory_written = saved->memory_written;
    log_.info("snapshot made", {kv("path", action.directory.value_or(action.state_path)),
                                kv("memory_stored", saved->memory_stored),
                                kv("memory_written", saved->memory_written),
                                kv("milliseconds", last_save_.took / 1'000'000)});
    note_saved(action, plan.form, *std::move(saved));
    return {};
}

Result<> Monitor::begin_live_save(const action::CreateSnapshot& action) {
    const bool logged = machine_->logs_writes();
    TRY(gather_writes());
    auto plan = TRY(plan_memory(action));
    auto pages = plan.pages != nullptr ? *plan.pages : PageSet();
    // A write between the two is in the log and may be in `pages` as well, which is no harm; one
    // between a look at this process's pages and the log would be lost, so the log comes first.
    if (!logged) {
        TRY(machine_->log_writes(true));
        if (lineage_.parent)
            pages.merge(snapshot::touched_pages(machine_->ram()));
    }
    live_save_ = std::make_unique<snapshot::LiveSave>(
        snapshot::LiveSave::Parts{.loop = services_.loop,
                                  .clock = services_.clock,
                                  .machine = *machine_,
                                  .stop_and_save = [this]() -> Result<snapshot::MachineState> {
                                      TRY(machine_->pause());
                                      return save_state();
                                  },
                                  .resume = [this]() -> Result<> {
                                      return state_ == VmState::Running ? machine_->resume()
                                                                        : Result<>();
                                  },
                                  .config = [this]() -> const VmConfig& { return vm_; },
                                  .ended =
                                      [this, action, logged](Result<snapshot::SaveResult> result,
                                                             const PageSet& collected) {
                                          if (!logged)
                                              if (auto off = machine_->log_writes(false); !off)
                                                  log_.warn("the log of written pages stays on",
                                                            {kv("error", off.error().message)});
                                          end_live_save(action, std::move(result), collected);
                                      },
                                  .filters = services_.filters},
        snapshot::LiveSave::Wanted{.path = *action.directory,
                                   .metadata = action.metadata,
                                   .plan = std::move(plan),
                                   .pages = std::move(pages)});
    return {};
}

void Monitor::end_live_save(const action::CreateSnapshot& action,
                            Result<snapshot::SaveResult> result, const PageSet& collected) {
    last_save_ = live_save_->progress();
    const auto form = last_save_.form;
    live_save_.reset();
    if (!result) {
        if (machine_->logs_writes())
            lineage_.add(collected);
        log_.warn("a live snapshot failed",
                  {kv("path", *action.directory), kv("error", result.error().message)});
        return;
    }
    log_.info("live snapshot made",
              {kv("path", *action.directory), kv("memory_stored", last_save_.memory_stored),
               kv("rounds", last_save_.rounds), kv("pause_us", last_save_.pause / 1000),
               kv("milliseconds", last_save_.took / 1'000'000)});
    note_saved(action, form, *std::move(result));
}

Result<VmmReply> Monitor::carry_out(const action::CreateSnapshot& action) {
    if (live_save_)
        return fail("a snapshot is being made; GET /snapshot/create tells when it is done");
    if (action.live && state_ == VmState::Running)
        TRY(begin_live_save(action));
    else if (state_ != VmState::Paused)
        return fail("the VM runs; pause it first: PATCH /vm {{\"state\": \"Paused\"}}");
    else
        TRY(save_paused(action));
    return Done{};
}

Result<VmmReply> Monitor::carry_out(const action::GetSaveProgress&) {
    return live_save_ ? live_save_->progress() : last_save_;
}

// What the machine does not know of itself.
void Monitor::describe(snapshot::MachineState& state) {
    api::JsonWriter json;
    api::write(json, FullConfig{.vm = vm_, .secrets = true});
    state.config = json.text();
    state.interfaces = network_.save(services_.clock.now());
    if (!vm_.metadata && network_.store().document() != nullptr)
        state.metadata = network_.store().text();
}

// The configuration travels as JSON and is taken as a config file is, so that whatever one can hold
// the other can. A logger or metrics file in there is the saving monitor's and not ours.
Result<std::vector<std::string>> Monitor::take_config(const action::LoadSnapshot& action,
                                                      std::vector<VmmAction> settings) {
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
        TRY(snapshot::own_drives(vm_.drives, action.directory, *action.overlay_folder, given));
    }
    TRY(check(vm_));
    return readdressed;
}

// Flows are those of connections that the guest has where it was saved: another machine, or one
// with another address, has none of them, and nobody may reach it through them.
Result<> Monitor::take_flows(std::vector<RestoredFirewall> firewalls,
                             const action::LoadSnapshot& action,
                             const std::vector<std::string>& readdressed) {
    for (auto& [id, firewall] : firewalls) {
        auto* interface = TRY(network_.require(id));
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

Result<> Monitor::begin_recording() {
    if (!recording_)
        return {};
    constexpr Nanoseconds first_look = 1'000'000;
    recording_->end = services_.clock.now() + recording_->length;
    recording_->timer.emplace(TRY(services_.loop.timer([this] { look_whether_ready(); })));
    recording_->timer->arm(first_look);
    return {};
}

// Ready is what the guest says so itself (the init milestone), or the end of the time.
void Monitor::look_whether_ready() {
    constexpr Nanoseconds interval = 2'000'000;
    if (services_.clock.now() < recording_->end &&
        !services_.boot_timer.since_start(Milestone::Init)) {
        recording_->timer->arm(interval);
        return;
    }
    if (const auto done = end_recording(); !done)
        log_.warn("the working set was not recorded", {kv("error", done.error().message)});
}

Result<> Monitor::end_recording() {
    const auto path = recording_->path;
    const auto snapshot = recording_->snapshot;
    recording_.reset();
    const auto list = TRY(snapshot::look_at_working_set(machine_->ram(), snapshot));
    const auto file = encode(list);
    TRY(write_file_atomically(path, {reinterpret_cast<const char*>(file.data()), file.size()}));
    log_.info("working set recorded", {kv("path", path), kv("pages", list.pages())});
    return {};
}

Result<VmmReply> Monitor::carry_out(const action::EndWorkingSet&) {
    if (!recording_)
        return fail("no working set is being recorded; ask for it with PUT /snapshot/load");
    TRY(end_recording());
    return Done{};
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

Result<VmmReply> Monitor::carry_out(const action::PrepareLoad& action) {
    TRY(check_may_load());
    TRY(check_memory_file(action.load));
    prepared_.reset();
    auto read = TRY(snapshot::read_state(action.load.state_path));
    auto vm =
        TRY(services_.make_vm(snapshot::shown_cpuid(read.state), snapshot::has_smt(read.settings),
                              {.metrics = services_.metrics,
                               .boot_timer = services_.boot_timer,
                               .filters = services_.filters}));
    prepared_.emplace(std::move(read), std::move(vm));
    return Done{};
}

Result<> Monitor::load(const action::LoadSnapshot& action) {
    TRY(check_memory_file(action));
    auto prepared = std::exchange(prepared_, std::nullopt);
    if (prepared && !snapshot::is_current(prepared->read, action.state_path))
        prepared.reset();
    auto read = prepared ? std::move(prepared->read) : TRY(snapshot::read_state(action.state_path));
    const auto id = read.id;
    RestoreSource source{
        .state = std::move(read.state),
        .memory_path = action.memory_path,
        .memory_handler = action.memory_handler,
        .clock = action.clock_realtime ? ClockPolicy::Realtime : ClockPolicy::Continue};
    // Before anything is opened: the flows may be anyone's bytes.
    auto firewalls = TRY(restore_firewalls(source.state.interfaces, services_.clock.now()));
    vm_.transport = source.state.transport;
    source.readdressed = TRY(take_config(action, std::move(read.settings)));
    TRY(take_flows(std::move(firewalls), action, source.readdressed));
    // A document that was PUT here already is the newer one.
    if (!source.state.metadata.empty() && network_.store().document() == nullptr)
        TRY(network_.store().put(source.state.metadata));
    source.working_set = find_working_set(action, id, source.state.memory_bytes);
    if (jailed() && !action.memory_handler.empty())
        source.faults = TRY(duplicate_page_faults());
    if (prepared)
        source.vm = std::move(prepared->vm);
    machine_ = TRY(services_.restore_machine(vm_, std::move(source), next_machine()));
    if (action.record_working_set_ms)
        recording_ = {.path = fmt::format("{}/{}", action.directory, snapshot::working_set_name),
                      .snapshot = id,
                      .length = *action.record_working_set_ms * 1'000'000,
                      .timer = {}};
    Fd memory(::fcntl(machine_->ram().memfd(), F_DUPFD_CLOEXEC, 0));
    lineage_.begin_at(std::move(memory), id,
                      action.directory.empty() ? action.state_path : action.directory,
                      machine_->ram().size() / guest_page);
    TRY(end_set_up());
    if (action.resume)
        return start_machine();
    return {};
}

Result<VmmReply> Monitor::carry_out(const action::LoadSnapshot& action) {
    TRY(check_may_load());
    const auto before = vm_;
    const auto metadata_before = network_.store();
    if (auto loaded = load(action); !loaded) {
        drop_machine();
        network_.close();
        vsock_.reset();
        network_.store() = metadata_before;
        vm_ = before;
        return std::unexpected(std::move(loaded).error());
    }
    state_ = action.resume ? VmState::Running : VmState::Paused;
    log_.info("snapshot loaded", {kv("id", vm_.id), kv("path", action.state_path)});
    return Done{};
}

}  // namespace masu
