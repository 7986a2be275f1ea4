// Saving a VM while it runs: memory is copied in rounds, each of the pages written during the one
// before, and the guest stands still for the last only.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "base/event_loop.hpp"
#include "vmm/jail/thread_kind.hpp"
#include "vmm/machine.hpp"
#include "vmm/snapshot/save.hpp"

namespace masu::snapshot {

// One live save, from its beginning to its end. Made, used and destroyed on the loop's thread;
// memory is copied, and files are synced, on a thread of its own, so that devices go on meanwhile.
// Destruction gives the save up, and waits for that thread, which stops at the next chunk.
class LiveSave {
  public:
    // At most so many rounds before the last; fewer when one has little left to do, or does not
    // get ahead of the guest any more.
    static constexpr unsigned max_rounds = 8;
    static constexpr std::size_t few_pages = 256;

    struct Wanted {
        std::string path;
        std::string metadata;
        MemoryPlan plan;
        PageSet pages;  // for a plan that is not Whole: what its `pages` will point to
    };
    struct Parts {
        EventLoop& loop;
        const Clock& clock;
        Machine& machine;  // logs writes
        // Both on the loop's thread. stop_and_save: the guest stands still from its call until
        // resume()'s, whatever the outcome.
        std::function<Result<MachineState>()> stop_and_save;
        std::function<Result<>()> resume;
        std::function<const VmConfig&()> config;
        // The end, on the loop's thread; the LiveSave may be destroyed there. `collected`: the
        // pages it took out of the log, which after a failure are still to be saved.
        std::function<void(Result<SaveResult>, const PageSet& collected)> ended;
        jail::FilterMode filters = jail::FilterMode::Off;  // of its thread
    };

    LiveSave(Parts parts, Wanted wanted);
    ~LiveSave();
    LiveSave(const LiveSave&) = delete;
    LiveSave& operator=(const LiveSave&) = delete;

    // Lets it come to nothing, unless only files are left to write: then to its end. Blocks for as
    // long; progress() is final afterwards, or Running when nothing came of it.
    void give_up();
    [[nodiscard]] SaveProgress progress() const;
    [[nodiscard]] const MemoryPlan& plan() const noexcept { return wanted_.plan; }

  private:
    [[nodiscard]] Result<> copy_while_running(const std::stop_token& stop);
    [[nodiscard]] Result<> copy(const PageSet& pages, const std::stop_token& stop);
    [[nodiscard]] Result<> last_round();
    void stand_still();
    [[nodiscard]] Result<SaveResult> write_rest();
    void finish(const std::stop_token& stop);
    void end(Result<SaveResult> result);
    void post(std::function<void()> step);

    Parts parts_;
    Wanted wanted_;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // loop thread
    Nanoseconds began_;
    // One thread at a time has these: the worker's, or, while it waits, the loop's.
    std::optional<DirectorySave> files_;
    PageSet all_;      // whatever was collected so far
    PageSet pending_;  // collected and not copied yet
    MachineState state_;
    VmConfig config_;
    mutable std::mutex mutex_;  // guards progress_
    SaveProgress progress_;
    std::jthread worker_;
};

}  // namespace masu::snapshot
