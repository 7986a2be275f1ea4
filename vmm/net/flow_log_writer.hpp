// Writes an interface's flow log: ends a window when its time is up, and puts its lines into the
// file, between packets and not among them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.hpp"
#include "base/event_loop.hpp"
#include "base/log.hpp"
#include "base/result.hpp"
#include "devices/net/flow_log.hpp"
#include "devices/net/flow_log_file.hpp"
#include "devices/net/flow_log_format.hpp"

namespace masu {

struct FlowLogConfig {
    std::string path;
    std::string format = std::string(net::FlowLogFormat::version2);
    std::uint32_t interval = 60;  // seconds of a window, 1 to 600
    // What lines say of the instance; absent: what its metadata says, if it has any.
    std::optional<std::string> account_id;
    std::optional<std::string> instance_id;  // never by the API
    bool operator==(const FlowLogConfig&) const = default;
};
[[nodiscard]] Result<> check(const FlowLogConfig& config);

// Loop thread, which is the firewall's. A file that cannot be written loses lines, never packets;
// the log says so, once for each run of failures.
class FlowLogWriter {
  public:
    // Loop, clock and log outlive it. The identity's interface_id and primary address are set.
    [[nodiscard]] static Result<std::unique_ptr<FlowLogWriter>> create(
        const FlowLogConfig& config, net::FlowLogIdentity identity, EventLoop& loop,
        const Clock& clock, Log log);
    // Writes what the last window holds.
    ~FlowLogWriter();
    FlowLogWriter(const FlowLogWriter&) = delete;
    FlowLogWriter& operator=(const FlowLogWriter&) = delete;

    // For Firewall::set_flow_log().
    [[nodiscard]] net::FlowLog& flow_log() noexcept { return flows_; }
    [[nodiscard]] const FlowLogConfig& config() const noexcept { return config_; }

  private:
    FlowLogWriter(FlowLogConfig config, net::FlowLogIdentity identity, net::FlowLogFormat format,
                  net::FlowLogFile file, const net::SipKey& key, const Clock& clock, Log log);
    void end_window();

    FlowLogConfig config_;
    net::FlowLogIdentity identity_;
    net::FlowLogFormat format_;
    net::FlowLogFile file_;
    net::FlowLog flows_;
    const Clock& clock_;
    Log log_;
    std::uint64_t window_began_;  // wall time
    bool failing_ = false;
    std::unique_ptr<EventLoop::Timer> timer_;
};

}  // namespace masu
