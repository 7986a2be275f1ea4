// Counters to a file: one line of JSON each minute and whenever asked.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/event_loop.hpp"
#include "base/fd.hpp"
#include "vmm/vmm_action.hpp"

namespace masu {

// Loop thread. A FIFO without room loses the line; values are totals, so that the next one makes
// good.
class MetricsFile {
  public:
    static constexpr Nanoseconds interval = 60'000'000'000;

    // `collect` is called for each line, for as long as the MetricsFile lives.
    [[nodiscard]] static Result<std::unique_ptr<MetricsFile>> create(
        EventLoop& loop, MetricsConfig config, std::string instance_id,
        std::function<MetricsReport()> collect);
    MetricsFile(const MetricsFile&) = delete;
    MetricsFile& operator=(const MetricsFile&) = delete;

    [[nodiscard]] Result<> write_line();
    [[nodiscard]] const MetricsConfig& config() const noexcept { return config_; }

  private:
    MetricsFile(Fd file, MetricsConfig config, std::string instance_id,
                std::function<MetricsReport()> collect)
        : file_(std::move(file)),
          config_(std::move(config)),
          instance_id_(std::move(instance_id)),
          collect_(std::move(collect)) {}

    Fd file_;
    MetricsConfig config_;
    std::string instance_id_;
    std::function<MetricsReport()> collect_;
    std::optional<EventLoop::Timer> timer_;
};

}  // namespace masu
