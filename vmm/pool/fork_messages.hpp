// What goes over the socket between a pool and the process that forks for it: one packet each.
#pragma once

#include <cstddef>
#include <cstdint>

namespace masu::pool {

// To the process that forks. Fork is followed by the arguments, each with a NUL behind it, and
// carries the descriptors.
struct ForkOrder {
    enum class Kind : std::uint32_t { Fork, Kill };
    Kind kind = Kind::Fork;
    std::uint32_t argument_count = 0;
    std::uint64_t worker = 0;
};

// From it.
struct ForkEvent {
    enum class Kind : std::uint32_t { Started, Ended };
    Kind kind = Kind::Started;
    std::int32_t value = 0;  // Started: the pid; Ended: wait()'s status
    std::uint64_t worker = 0;
};

inline constexpr std::size_t max_fork_packet = 32 * 1024;

}  // namespace masu::pool
