// The counter table.
#include "base/metrics.hpp"

namespace masu {

Counter& Metrics::counter(std::string_view group, std::string_view name) {
    const std::lock_guard lock(mutex_);
    for (auto& entry : entries_)
        if (entry.group == group && entry.name == name)
            return entry.counter;
    auto& entry = entries_.emplace_back();
    entry.group = group;
    entry.name = name;
    return entry.counter;
}

std::vector<Metrics::Sample> Metrics::samples() const {
    const std::lock_guard lock(mutex_);
    std::vector<Sample> result;
    result.reserve(entries_.size());
    for (const auto& entry : entries_)
        result.push_back({entry.group, entry.name, entry.counter.value()});
    return result;
}

}  // namespace masu
