// Windows of the flow log, one after the other.
#include "vmm/net/flow_log_writer.hpp"

#include <sys/random.h>

#include <cerrno>

#include "devices/net/metadata/instance.hpp"

namespace masu {
namespace {

constexpr std::uint64_t second = 1'000'000'000;
constexpr std::uint32_t longest_interval = 600;

}  // namespace

Result<> check(const FlowLogConfig& config) {
    if (config.path.empty() || config.path.front() != '/')
        return fail("flow log: the path \"{}\" must be absolute", config.path);
    if (config.interval == 0 || config.interval > longest_interval)
        return fail("flow log: the interval is {} s, but must be 1 to {}", config.interval,
                    longest_interval);
    if (auto format = net::FlowLogFormat::parse(config.format); !format)
        return std::unexpected(format.error());
    if (config.account_id && !net::is_account_id(*config.account_id))
        return fail("flow log: the account id \"{}\" must be 12 digits",
                    config.account_id->substr(0, 64));
    return {};
}

FlowLogWriter::FlowLogWriter(FlowLogConfig config, net::FlowLogIdentity identity,
                             net::FlowLogFormat format, net::FlowLogFile file,
                             const net::SipKey& key, const Clock& clock, Log log)
    : config_(std::move(config)),
      identity_(std::move(identity)),
      format_(std::move(format)),
      file_(std::move(file)),
      flows_(key),
      clock_(clock),
      log_(std::move(log)),
      window_began_(clock.wall()) {}

Result<std::unique_ptr<FlowLogWriter>> FlowLogWriter::create(const FlowLogConfig& config,
                                                             net::FlowLogIdentity identity,
                                                             EventLoop& loop, const Clock& clock,
                                                             Log log) {
    TRY(check(config));
    net::SipKey key;
    if (::getrandom(&key, sizeof key, 0) != sizeof key)
        return fail_errno(errno, "flow log: no random seed from the host");
    auto format = TRY(net::FlowLogFormat::parse(config.format));
    auto file = TRY(net::FlowLogFile::open(config.path));
    std::unique_ptr<FlowLogWriter> writer(new FlowLogWriter(config, std::move(identity),
                                                            std::move(format), std::move(file), key,
                                                            clock, std::move(log)));
    writer->timer_ = std::make_unique<EventLoop::Timer>(TRY(loop.timer([raw = writer.get()] {
        raw->end_window();
        raw->timer_->arm(raw->config_.interval * second);
    })));
    writer->timer_->arm(config.interval * second);
    return writer;
}

FlowLogWriter::~FlowLogWriter() {
    timer_.reset();
    end_window();
}

void FlowLogWriter::end_window() {
    const auto wall = clock_.wall();
    const net::FlowLogSpan span{.begin = static_cast<std::int64_t>(window_began_ / second),
                                .end = static_cast<std::int64_t>(wall / second),
                                .now = clock_.now(),
                                .wall = wall};
    window_began_ = wall;
    const auto written = file_.write(format_.lines(flows_.take(), identity_, span));
    if (!written && !failing_)
        log_.warn("flow log lines are lost", {kv("why", written.error().message)});
    failing_ = !written;
}

}  // namespace masu
