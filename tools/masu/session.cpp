// From a joined console to an exit status.
#include "tools/masu/session.hpp"

#include "tools/masu/attach.hpp"
#include "tools/masu/commands.hpp"
#include "tools/masu/monitor_client.hpp"

namespace masu::cli {
namespace {

constexpr int stop_patience_ms = 10'000;
constexpr int signal_status_base = 128;

int report_end(const VmFolder& folder, const VmRecord& record, const MonitorProcess& monitor) {
    auto end = describe_end(folder);
    if (auto reason = killed_by_jail(record, monitor))
        end = {false, *std::move(reason)};
    if (end.clean)
        return 0;
    note(folder.name() + ": " + end.reason);
    return 1;
}

void note_that_it_goes_on(const std::string& name) {
    note(fmt::format("{} goes on; `masu console {}` comes back to it", name, name));
}

}  // namespace

Result<> stop_at_once(const VmRecord& record, const MonitorProcess& monitor) {
    const MonitorClient client(record.api_socket(), record.name);
    const auto asked = client.action("Stop", stop_patience_ms);
    if (asked && monitor.wait(stop_patience_ms))
        return {};
    // It may have ended by itself between the two.
    if (monitor.wait(0))
        return {};
    TRY(monitor.kill());
    if (!monitor.wait(stop_patience_ms))
        return fail("process {}, the monitor of {}, cannot be killed; it hangs in the kernel",
                    monitor.pid, record.name);
    return {};
}

End describe_end(const VmFolder& folder) {
    if (!folder.has_exit_record())
        return {false, "dead (its monitor was killed)"};
    const auto record = folder.exit_record();
    if (!record)
        return {false, record.error().message};
    return {record->status == 0, record->reason.empty() ? record->kind : record->reason};
}

Result<int> hold_console(const VmFolder& folder, const VmRecord& record,
                         const MonitorProcess& monitor, const Fd& console) {
    const auto result = TRY(attach(console, monitor));
    switch (result.end) {
        case AttachEnd::Stopped:
            return report_end(folder, record, monitor);
        case AttachEnd::Quit:
            TRY(stop_at_once(record, monitor));
            note(record.name + ": stopped on request");
            return result.signal == 0 ? 0 : signal_status_base + result.signal;
        case AttachEnd::Detached:
            note_that_it_goes_on(record.name);
            return 0;
        case AttachEnd::Interrupted:
            note_that_it_goes_on(record.name);
            return signal_status_base + result.signal;
        case AttachEnd::OutputGone:
            note_that_it_goes_on(record.name);
            return 1;
    }
    return 1;
}

}  // namespace masu::cli
