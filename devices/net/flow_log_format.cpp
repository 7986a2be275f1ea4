// Formatting flow logs.
#include "devices/net/flow_log_format.hpp"

#include <algorithm>
#include <sstream>

namespace masu::net {

enum class FlowLogFormat::Field : std::uint8_t {
    Version,
    AccountId,
    InterfaceId,
    SourceAddress,
    DestinationAddress,
    SourcePort,
    DestinationPort,
    Protocol,
    Packets,
    Bytes,
    Start,
    End,
    Action,
    LogStatus,
    VpcId,
    SubnetId,
    InstanceId,
    TcpFlags,
    Type,
    PacketSource,
    PacketDestination,
    Region,
    AzId,
    FlowDirection,
    TrafficPath,
};

struct FlowLogFormat::Known {
    std::string_view name;
    Field field;
    int version;  // of the format that brought it
};

const std::vector<FlowLogFormat::Known>& FlowLogFormat::known() {
    static const std::vector<Known> fields{
        {"version", Field::Version, 2},
        {"account-id", Field::AccountId, 2},
        {"interface-id", Field::InterfaceId, 2},
        {"srcaddr", Field::SourceAddress, 2},
        {"dstaddr", Field::DestinationAddress, 2},
        {"srcport", Field::SourcePort, 2},
        {"dstport", Field::DestinationPort, 2},
        {"protocol", Field::Protocol, 2},
        {"packets", Field::Packets, 2},
        {"bytes", Field::Bytes, 2},
        {"start", Field::Start, 2},
        {"end", Field::End, 2},
        {"action", Field::Action, 2},
        {"log-status", Field::LogStatus, 2},
        {"vpc-id", Field::VpcId, 3},
        {"subnet-id", Field::SubnetId, 3},
        {"instance-id", Field::InstanceId, 3},
        {"tcp-flags", Field::TcpFlags, 3},
        {"type", Field::Type, 3},
        {"pkt-srcaddr", Field::PacketSource, 3},
        {"pkt-dstaddr", Field::PacketDestination, 3},
        {"region", Field::Region, 4},
        {"az-id", Field::AzId, 4},
        {"flow-direction", Field::FlowDirection, 5},
        {"traffic-path", Field::TrafficPath, 5},
    };
    return fields;
}

// One line to be: of a record, or of a window that has none (null).
struct FlowLogFormat::Line {
    const FlowRecord* record;
    std::string_view status;
    const FlowLogIdentity& identity;
    const FlowLogSpan& span;

    // A packet's time on the wall clock, in seconds.
    [[nodiscard]] std::int64_t seconds(Nanoseconds time) const {
        constexpr std::uint64_t second = 1'000'000'000;
        const auto ago = span.now > time ? span.now - time : 0;
        return static_cast<std::int64_t>((span.wall - std::min(ago, span.wall)) / second);
    }
    // The guest's end as flow logs show it.
    [[nodiscard]] Address shown(const Address& address, bool own) const {
        return own && address.family == Family::V4 && !identity.primary.is_unspecified()
                   ? identity.primary
                   : address;
    }
};

Result<FlowLogFormat> FlowLogFormat::parse(std::string_view text) {
    FlowLogFormat format;
    std::istringstream words{std::string(text)};
    for (std::string word; words >> word;) {
        const bool wrapped = word.starts_with("${") && word.ends_with('}') && word.size() > 3;
        const auto name = wrapped ? word.substr(2, word.size() - 3) : word;
        const auto found = std::ranges::find(known(), name, &Known::name);
        if (!wrapped || found == known().end()) {
            std::string all;
            for (const auto& field : known())
                all += fmt::format(" ${{{}}}", field.name);
            return fail("flow log format: \"{}\" is no field; there are{}", word, all);
        }
        format.fields_.push_back(found->field);
        format.version_ = std::max(format.version_, found->version);
    }
    if (format.fields_.empty())
        return fail("flow log format: names no field, such as ${{srcaddr}}");
    return format;
}

std::string FlowLogFormat::text(Field field, const Line& line) const {
    const auto or_dash = [](const std::string& value) { return value.empty() ? "-" : value; };
    const auto& identity = line.identity;
    switch (field) {
        case Field::Version:
            return std::to_string(version_);
        case Field::AccountId:
            return or_dash(identity.account_id);
        case Field::InterfaceId:
            return or_dash(identity.interface_id);
        case Field::VpcId:
            return or_dash(identity.vpc_id);
        case Field::SubnetId:
            return or_dash(identity.subnet_id);
        case Field::InstanceId:
            return or_dash(identity.instance_id);
        case Field::Region:
            return or_dash(identity.region);
        case Field::AzId:
            return or_dash(identity.az_id);
        case Field::LogStatus:
            return std::string(line.status);
        default:
            break;
    }
    if (line.record == nullptr) {
        if (field == Field::Start)
            return std::to_string(line.span.begin);
        return field == Field::End ? std::to_string(line.span.end) : "-";
    }
    const auto& record = *line.record;
    const auto& tuple = record.tuple;
    const bool out = record.direction == Direction::Egress;
    switch (field) {
        case Field::SourceAddress:
            return to_string(line.shown(tuple.source, out));
        case Field::DestinationAddress:
            return to_string(line.shown(tuple.destination, !out));
        case Field::PacketSource:
            return to_string(tuple.source);
        case Field::PacketDestination:
            return to_string(tuple.destination);
        case Field::SourcePort:
            return std::to_string(tuple.source_port);
        case Field::DestinationPort:
            return std::to_string(tuple.destination_port);
        case Field::Protocol:
            return std::to_string(tuple.protocol);
        case Field::Packets:
            return std::to_string(record.packets);
        case Field::Bytes:
            return std::to_string(record.bytes);
        case Field::Start:
            return std::to_string(line.seconds(record.first));
        case Field::End:
            return std::to_string(line.seconds(record.last));
        case Field::Action:
            return record.accepted ? "ACCEPT" : "REJECT";
        case Field::TcpFlags:
            return std::to_string(record.tcp_flags);
        case Field::Type:
            return tuple.source.family == Family::V4 ? "IPv4" : "IPv6";
        case Field::FlowDirection:
            return out ? "egress" : "ingress";
        default:
            return "-";
    }
}

std::string FlowLogFormat::format(const Line& line) const {
    std::string result;
    for (const auto field : fields_)
        result += (result.empty() ? "" : " ") + text(field, line);
    return result + "\n";
}

std::string FlowLogFormat::lines(const FlowLog::Window& window, const FlowLogIdentity& identity,
                                 const FlowLogSpan& span) const {
    std::string result;
    for (const auto& record : window.records)
        result += format({&record, "OK", identity, span});
    if (window.skipped != 0)
        result += format({nullptr, "SKIPDATA", identity, span});
    else if (window.records.empty())
        result += format({nullptr, "NODATA", identity, span});
    return result;
}

}  // namespace masu::net
