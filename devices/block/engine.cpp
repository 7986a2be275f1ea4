#include "devices/block/engine.hpp"

#include <fmt/format.h>

#include <optional>
#include <utility>

#include "devices/block/sync_disk.hpp"
#include "devices/block/uring_disk.hpp"

namespace masu::block {
namespace {

Engine make_engine(File file, EventFd event, bool force_sync) {
    Engine engine;
    if (!force_sync) {
        auto disk = UringDisk::create(file, event);
        if (disk)
            return {.disk = *std::move(disk), .name = "io_uring", .warning = {}};
        engine.warning = fmt::format("disk {}: {}; using the slower synchronous engine",
                                     file.path(), disk.error().message);
    }
    engine.name = "sync";
    engine.disk = std::make_unique<SyncDisk>(std::move(file), std::move(event));
    return engine;
}

// Before and after, the completion descriptor is the same.
class LateDisk final : public Disk {
  public:
    LateDisk(File file, EventFd event, bool force_sync,
             std::function<void(const std::string&)> warn)
        : file_(std::move(file)),
          event_(std::move(event)),
          force_sync_(force_sync),
          warn_(std::move(warn)) {}

    [[nodiscard]] std::uint64_t size() const noexcept override {
        return disk_ ? disk_->size() : file_->size();
    }
    [[nodiscard]] bool read_only() const noexcept override {
        return disk_ ? disk_->read_only() : file_->read_only();
    }
    [[nodiscard]] int completion_fd() const noexcept override {
        return disk_ ? disk_->completion_fd() : event_->fd();
    }
    Result<std::uint64_t> refresh_size() override {
        return disk_ ? disk_->refresh_size() : file_->refresh_size();
    }
    void wake() override {
        if (disk_)
            return;
        auto engine = make_engine(*std::move(file_), *std::move(event_), force_sync_);
        file_.reset();
        event_.reset();
        disk_ = std::move(engine.disk);
        if (!engine.warning.empty())
            warn_(engine.warning);
    }
    void submit(const Request& request) override {
        wake();
        disk_->submit(request);
    }
    void kick() override {
        if (disk_)
            disk_->kick();
    }
    void reap(std::vector<Completion>& done) override {
        if (disk_)
            disk_->reap(done);
    }
    void drain(std::vector<Completion>& done) override {
        if (disk_)
            disk_->drain(done);
    }

  private:
    std::optional<File> file_;  // this and the next until there is an engine
    std::optional<EventFd> event_;
    bool force_sync_;
    std::function<void(const std::string&)> warn_;
    std::unique_ptr<Disk> disk_;
};

}  // namespace

Result<Engine> start_engine(File file, bool force_sync) {
    return make_engine(std::move(file), TRY(EventFd::create()), force_sync);
}

Result<Engine> start_engine_later(File file, bool force_sync,
                                  std::function<void(const std::string&)> warn) {
    return Engine{.disk = std::make_unique<LateDisk>(std::move(file), TRY(EventFd::create()),
                                                     force_sync, std::move(warn)),
                  .name = "none yet",
                  .warning = {}};
}

}  // namespace masu::block
