// What a VM is doing, as ps and inspect tell it.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <boost/json/object.hpp>

#include "tools/masu/state.hpp"

namespace masu::cli {

enum class VmState { Starting, Running, Paused, Unresponsive, Stopped, Dead };

// "starting" "running" "paused" "unresponsive" "stopped" "dead"
[[nodiscard]] std::string_view to_string(VmState state);

struct VmStatus {
    VmFolder folder;
    VmState state = VmState::Dead;
    std::string reason;              // of Stopped, Dead and Unresponsive
    std::optional<VmRecord> record;  // absent when vm.json cannot be read
    std::string record_error;

    [[nodiscard]] bool alive() const { return state != VmState::Stopped && state != VmState::Dead; }
    // "running", "stopped (guest powered off)"
    [[nodiscard]] std::string text() const;
};

// Asks the lock, then exit.json or the monitor.
[[nodiscard]] VmStatus look_at(const VmFolder& folder);

// What ps and inspect share in JSON.
[[nodiscard]] boost::json::object to_json(const VmStatus& status);

// "2 h" since a Unix time.
[[nodiscard]] std::string format_age(std::int64_t since);

}  // namespace masu::cli
