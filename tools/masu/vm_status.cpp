// Tells the living from the dead.
#include "tools/masu/vm_status.hpp"

#include <ctime>

#include <boost/json.hpp>

#include "tools/masu/monitor_client.hpp"
#include "tools/masu/session.hpp"

namespace masu::cli {
namespace {

// Several VMs may hang, each in its turn; a busy machine is no reason to call one unresponsive.
constexpr int answer_ms = 5'000;

void ask_monitor(VmStatus& status) {
    if (!status.record || status.record->pid == 0) {
        status.state = VmState::Starting;
        return;
    }
    const MonitorClient client(status.record->api_socket(), status.record->name);
    const auto answer = client.get("/", answer_ms);
    if (!answer) {
        status.state = VmState::Unresponsive;
        status.reason = answer.error().message;
        return;
    }
    const auto* object = answer->if_object();
    const auto* state = object == nullptr ? nullptr : object->if_contains("state");
    const bool known = state != nullptr && state->is_string();
    const std::string_view word = known ? std::string_view(state->get_string()) : "";
    status.state = word == "Paused"        ? VmState::Paused
                   : word == "Not started" ? VmState::Starting
                                           : VmState::Running;
}

}  // namespace

std::string_view to_string(VmState state) {
    switch (state) {
        case VmState::Starting:
            return "starting";
        case VmState::Running:
            return "running";
        case VmState::Paused:
            return "paused";
        case VmState::Unresponsive:
            return "unresponsive";
        case VmState::Stopped:
            return "stopped";
        case VmState::Dead:
            return "dead";
    }
    return "dead";
}

std::string VmStatus::text() const {
    std::string text(to_string(state));
    return reason.empty() ? text : text + " (" + reason + ")";
}

VmStatus look_at(const VmFolder& folder) {
    VmStatus status{folder, VmState::Dead, {}, {}, {}};
    if (auto record = folder.record())
        status.record = *std::move(record);
    else
        status.record_error = record.error().message;
    const auto alive = folder.alive();
    if (!alive) {
        status.reason = alive.error().message;
    } else if (*alive) {
        ask_monitor(status);
        // It may have ended while it was asked.
        if (const auto still = folder.alive();
            status.state == VmState::Unresponsive && still && !*still)
            return look_at(folder);
    } else if (folder.has_exit_record()) {
        status.state = VmState::Stopped;
        status.reason = describe_end(folder).reason;
    } else {
        status.reason = "its monitor was killed";
    }
    return status;
}

boost::json::object to_json(const VmStatus& status) {
    boost::json::object object{{"name", status.folder.name()}, {"state", to_string(status.state)}};
    if (!status.reason.empty())
        object["reason"] = status.reason;
    if (!status.record_error.empty())
        object["error"] = status.record_error;
    if (status.record) {
        object["id"] = status.record->id;
        object["created"] = status.record->created;
        object["cpus"] = status.record->cpus;
        object["memory_mib"] = status.record->memory_mib;
        if (status.alive() && status.record->pid != 0)
            object["pid"] = status.record->pid;
    }
    return object;
}

std::string format_age(std::int64_t since) {
    const auto seconds = std::max<std::int64_t>(0, std::time(nullptr) - since);
    if (seconds < 60)
        return fmt::format("{} s", seconds);
    if (seconds < 3600)
        return fmt::format("{} min", seconds / 60);
    if (seconds < 48 * 3600)
        return fmt::format("{} h", seconds / 3600);
    return fmt::format("{} days", seconds / 86400);
}

}  // namespace masu::cli
