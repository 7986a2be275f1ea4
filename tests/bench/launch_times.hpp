// What one launch took, and the percentiles of many.
#pragma once

#include <algorithm>
#include <vector>

#include "base/clock.hpp"

namespace masu::bench {

enum class Level { Fresh, Forked, Loaded };

// On the monotonic clock.
struct LaunchTimes {
    Nanoseconds trigger = 0;
    Nanoseconds first_exit = 0;  // of the guest: it runs
    Nanoseconds reply = 0;       // 0: the guest has nothing to reply with
    Nanoseconds end_asked = 0;
    Nanoseconds ended = 0;  // the process is gone
};

struct Percentiles {
    double p50 = 0;  // milliseconds
    double p99 = 0;
};

inline Percentiles percentiles(std::vector<double> values) {
    if (values.empty())
        return {};
    std::ranges::sort(values);
    const auto at = [&](double share) {
        return values[static_cast<std::size_t>(share * static_cast<double>(values.size() - 1))];
    };
    return {at(0.5), at(0.99)};
}

}  // namespace masu::bench
