// Lines of metrics.
#include "vmm/metrics_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "vmm/api/bodies.hpp"

namespace masu {

Result<std::unique_ptr<MetricsFile>> MetricsFile::create(EventLoop& loop, MetricsConfig config,
                                                         std::string instance_id,
                                                         std::function<MetricsReport()> collect) {
    constexpr int flags = O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    const auto& path = config.metrics_path;
    Fd file(::open(path.c_str(), O_WRONLY | flags, 0600));
    if (!file && errno == ENXIO)  // a FIFO nobody reads yet
        file.reset(::open(path.c_str(), O_RDWR | flags, 0600));
    if (!file)
        return fail_errno(errno, "cannot open the metrics file {}", path);
    std::unique_ptr<MetricsFile> metrics(new MetricsFile(
        std::move(file), std::move(config), std::move(instance_id), std::move(collect)));
    auto* self = metrics.get();
    self->timer_.emplace(TRY(loop.timer([self] {
        std::ignore = self->write_line();
        self->timer_->arm(interval);
    })));
    self->timer_->arm(interval);
    return metrics;
}

Result<> MetricsFile::write_line() {
    api::JsonWriter json;
    json.begin_object();
    if (config_.emit_id)
        json.field("id", instance_id_);
    if (!config_.properties.empty()) {
        json.key("properties").begin_object();
        for (const auto& [name, value] : config_.properties)
            json.field(name, value);
        json.end_object();
    }
    api::write_fields(json, collect_());
    json.end_object();
    const auto line = json.text() + "\n";
    if (::write(file_.get(), line.data(), line.size()) < 0 && errno != EAGAIN)
        return fail_errno(errno, "cannot write the metrics file {}", config_.metrics_path);
    return {};
}

}  // namespace masu
