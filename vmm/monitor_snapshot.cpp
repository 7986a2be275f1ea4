// Making snapshots.
#include "base/atomic_file.hpp"
#include "vmm/api/bodies.hpp"
#include "vmm/monitor.hpp"
#include "vmm/snapshot/memory_file.hpp"
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
    state.interfaces = network_->save(services_.clock.now());
    if (!vm_.metadata && network_->store().document() != nullptr)
        state.metadata = network_->store().text();
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

}  // namespace masu
