// Flow log records as lines, in the words of VPC flow logs: version 2 by default, or any choice of
// fields up to version 5.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "devices/net/flow_log.hpp"

namespace masu::net {

// What lines say beside the flow itself. Empty texts are shown as "-".
struct FlowLogIdentity {
    std::string account_id;
    std::string interface_id;
    std::string vpc_id;
    std::string subnet_id;
    std::string instance_id;
    std::string region;
    std::string az_id;
    Address primary;  // the interface's own end of IPv4 flows is shown as this
};

// The time a window covers, in Unix seconds; and what turns a packet's time into such seconds.
struct FlowLogSpan {
    std::int64_t begin = 0;
    std::int64_t end = 0;
    // At the window's end: both clocks (base/clock.hpp).
    Nanoseconds now = 0;
    std::uint64_t wall = 0;
};

class FlowLogFormat {
  public:
    static constexpr std::string_view version2 =
        "${version} ${account-id} ${interface-id} ${srcaddr} ${dstaddr} ${srcport} ${dstport} "
        "${protocol} ${packets} ${bytes} ${start} ${end} ${action} ${log-status}";

    // Fields as AWS writes them, "${srcaddr} ${dstaddr} ...", separated by blanks.
    [[nodiscard]] static Result<FlowLogFormat> parse(std::string_view text);

    // The window's lines, each with its line end: one a record, NODATA when there is none, and
    // SKIPDATA when some were skipped.
    [[nodiscard]] std::string lines(const FlowLog::Window& window, const FlowLogIdentity& identity,
                                    const FlowLogSpan& span) const;

  private:
    enum class Field : std::uint8_t;
    struct Line;
    struct Known;
    static const std::vector<Known>& known();
    [[nodiscard]] std::string text(Field field, const Line& line) const;
    [[nodiscard]] std::string format(const Line& line) const;

    std::vector<Field> fields_;
    int version_ = 2;
};

}  // namespace masu::net
