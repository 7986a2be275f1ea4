#include "vmm/snapshot/live_save.hpp"

#include "vmm/jail/jail.hpp"
#include "vmm/snapshot/memory_file.hpp"

namespace masu::snapshot {

namespace {

// Everything that has to be written of a memory from which nothing is on disk yet.
PageSet first_pages(const kvm::GuestRam& ram) {
    if (ram.anonymous())
        return touched_pages(ram);
    PageSet all(ram.size() / guest_page);
    for (std::size_t page = 0; page < all.pages(); ++page)
        all.add(page);
    return all;
}

}  // namespace

LiveSave::LiveSave(Parts parts, Wanted wanted)
    : parts_(std::move(parts)),
      wanted_(std::move(wanted)),
      began_(parts_.clock.now()),
      all_(parts_.machine.ram().size() / guest_page),
      pending_(all_.pages()) {
    wanted_.plan.pages = &wanted_.pages;
    progress_ = {.state = SaveState::Running, .live = true, .form = wanted_.plan.form};
    worker_ = std::jthread([this](const std::stop_token& stop) {
        auto copied = copy_while_running(stop);
        if (stop.stop_requested())
            return;
        post([this, copied = std::move(copied)] {
            if (copied)
                stand_still();
            else
                end(std::unexpected(copied.error()));
        });
    });
}

LiveSave::~LiveSave() {
    give_up();
}

void LiveSave::give_up() {
    *alive_ = false;
    worker_.request_stop();
    if (worker_.joinable())
        worker_.join();
}

SaveProgress LiveSave::progress() const {
    const std::lock_guard lock(mutex_);
    return progress_;
}

// The loop's next step. What is posted after the end finds nobody.
void LiveSave::post(std::function<void()> step) {
    parts_.loop.post([alive = alive_, step = std::move(step)] {
        if (*alive)
            step();
    });
}

Result<> LiveSave::copy(const PageSet& pages, const std::stop_token& stop) {
    const auto written =
        TRY(write_pages(parts_.machine.ram(), pages, files_->memory(),
                        wanted_.plan.form == MemoryForm::OwnPages ? Zeros::Data : Zeros::Hole,
                        files_->memory_path(), stop));
    const std::lock_guard lock(mutex_);
    ++progress_.rounds;
    progress_.last_round_pages = pages.count();
    progress_.memory_written += written;
    return {};
}

Result<> LiveSave::copy_while_running(const std::stop_token& stop) {
    TRY(jail::enter_thread(jail::ThreadKind::Copy, parts_.filters));
    auto& machine = parts_.machine;
    files_.emplace(TRY(DirectorySave::begin(wanted_.path, wanted_.plan)));
    TRY(size_memory(files_->memory(), machine.ram().size(), files_->memory_path()));
    TRY(copy(wanted_.plan.form == MemoryForm::Whole ? first_pages(machine.ram()) : wanted_.pages,
             stop));
    // Lest a write in the pause wait for the disk because so much is waiting already.
    TRY(sync_memory(files_->memory(), files_->memory_path()));
    std::size_t before = all_.pages() + 1;
    for (unsigned round = 1; round < max_rounds; ++round) {
        pending_.clear();
        TRY(machine.collect_writes(pending_));
        all_.merge(pending_);
        const auto count = pending_.count();
        // Little, or no less than the last time: the guest writes as fast as this copies.
        if (stop.stop_requested() || count <= few_pages || count >= before)
            break;
        before = count;
        TRY(copy(pending_, stop));
        pending_.clear();
    }
    return {};
}

Result<> LiveSave::last_round() {
    state_ = TRY(parts_.stop_and_save());
    PageSet last(all_.pages());
    TRY(parts_.machine.collect_writes(last));
    all_.merge(last);
    pending_.merge(last);
    TRY(copy(pending_, {}));
    config_ = parts_.config();
    return files_->copy_drives(config_);
}

void LiveSave::stand_still() {
    worker_.join();
    const auto stopped = parts_.clock.now();
    auto done = last_round();
    const auto resumed = parts_.resume();
    {
        const std::lock_guard lock(mutex_);
        progress_.pause = parts_.clock.now() - stopped;
    }
    if (done && !resumed)
        done = std::unexpected(resumed.error());
    if (!done) {
        end(std::unexpected(done.error()));
        return;
    }
    worker_ = std::jthread([this](const std::stop_token& stop) { finish(stop); });
}

Result<SaveResult> LiveSave::write_rest() {
    TRY(jail::enter_thread(jail::ThreadKind::Copy, parts_.filters));
    return files_->commit(state_, config_, wanted_.plan, progress().memory_written,
                          wanted_.metadata);
}

void LiveSave::finish(const std::stop_token& stop) {
    // Of a file that only has pages of its own, all that were ever collected are.
    wanted_.pages.merge(all_);
    auto result = std::make_shared<Result<SaveResult>>(write_rest());
    if (!stop.stop_requested()) {
        post([this, result] { end(std::move(*result)); });
    } else if (*result) {
        const std::lock_guard lock(mutex_);
        progress_.took = parts_.clock.now() - began_;
        progress_.state = SaveState::Done;
        progress_.memory_stored = (*result)->memory_stored;
    }
}

void LiveSave::end(Result<SaveResult> result) {
    {
        const std::lock_guard lock(mutex_);
        progress_.took = parts_.clock.now() - began_;
        progress_.state = result ? SaveState::Done : SaveState::Failed;
        if (result)
            progress_.memory_stored = result->memory_stored;
        else
            progress_.error = result.error().message;
    }
    files_.reset();
    const auto collected = std::move(all_);
    const auto ended = parts_.ended;
    ended(std::move(result), collected);
}

}  // namespace masu::snapshot
