// The rules once more, slow and plain: every rule is tried on every packet, every flow is a line in
// a list. What the firewall says must be what this says.
#pragma once

#include <algorithm>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.hpp"
#include "devices/net/firewall/packet.hpp"
#include "devices/net/firewall/rules.hpp"

namespace masu::net::fake {

struct ModelPacket {
    Direction direction;
    Tuple tuple;  // ports as in firewall's tuples
    std::uint8_t flags = 0;
};

class Model {
  public:
    RuleSet rules;
    GroupMembers members;

    void replace_rules(RuleSet next) { earlier_.push_back(std::exchange(rules, std::move(next))); }

    bool passes(const ModelPacket& packet, Nanoseconds now) {
        flows_.remove_if([now](const Line& line) { return line.until <= now; });
        const bool remembers = !is_icmp(packet) || query_type(packet).has_value();
        if (remembers) {
            const auto line = std::ranges::find_if(
                flows_, [&](const Line& known) { return known.name == name_of(packet); });
            if (line != flows_.end() && !starts_over(*line, packet)) {
                go_on(*line, packet, now);
                return true;
            }
            if (line != flows_.end())
                flows_.erase(line);
        }
        if (!admitted(packet, packet.direction, false))
            return false;
        if (remembers && !needs_no_tracking(packet) && begins(packet) && !is_left_over(packet))
            flows_.push_back(first_line(packet, now));
        return true;
    }

  private:
    struct Line {
        std::string name;
        Direction first;
        std::string state;
        std::set<Direction> closed;
        Nanoseconds until = 0;
    };

    static bool is_tcp(const ModelPacket& p) { return p.tuple.protocol == 6; }
    static bool is_udp(const ModelPacket& p) { return p.tuple.protocol == 17; }
    static bool is_icmp(const ModelPacket& p) {
        return p.tuple.protocol == 1 || p.tuple.protocol == 58;
    }
    static bool has(const ModelPacket& p, std::uint8_t flag) { return (p.flags & flag) != 0; }
    static bool is_syn(const ModelPacket& p) {
        return is_tcp(p) && has(p, tcp_flag::syn) && !has(p, tcp_flag::ack);
    }

    // --- rules ---

    std::vector<Prefix> peers(const Rule& rule) const {
        if (const auto* prefix = std::get_if<Prefix>(&rule.peer))
            return {*prefix};
        std::vector<Prefix> all;
        if (const auto* group = std::get_if<GroupReference>(&rule.peer))
            if (members.contains(group->group_id))
                for (const auto& address : members.at(group->group_id))
                    all.push_back(Prefix::host(address));
        if (const auto* list = std::get_if<PrefixListReference>(&rule.peer))
            if (rules.prefix_lists.contains(list->list_id))
                all = rules.prefix_lists.at(list->list_id);
        return all;
    }
    static bool open_to_all(const Rule& rule, Family family) {
        const auto* prefix = std::get_if<Prefix>(&rule.peer);
        return prefix != nullptr && prefix->length == 0 && prefix->address.family == family;
    }
    static bool covers_port(const Rule& rule, const Tuple& tuple, std::uint16_t port) {
        if (rule.protocol == Rule::any)
            return true;
        if (rule.protocol != tuple.protocol)
            return false;
        if (tuple.protocol == 6 || tuple.protocol == 17)
            return port >= rule.from && port <= rule.to;
        if (tuple.protocol == 1 || tuple.protocol == 58)
            return (rule.from == Rule::any || rule.from == tuple.icmp_type()) &&
                   (rule.to == Rule::any || rule.to == tuple.icmp_code());
        return true;
    }
    bool admitted(const ModelPacket& packet, Direction direction, bool only_open) const {
        const auto& tuple = packet.tuple;
        const auto& peer = direction == Direction::Ingress ? tuple.source : tuple.destination;
        return std::ranges::any_of(rules.rules, [&](const Rule& rule) {
            if (rule.direction != direction || !covers_port(rule, tuple, tuple.destination_port))
                return false;
            if (only_open)
                return open_to_all(rule, peer.family);
            return std::ranges::any_of(peers(rule),
                                       [&](const Prefix& p) { return p.contains(peer); });
        });
    }
    bool open_on_all_ports(Direction direction, const Tuple& tuple) const {
        return std::ranges::any_of(rules.rules, [&](const Rule& rule) {
            return rule.direction == direction && open_to_all(rule, tuple.source.family) &&
                   (rule.protocol == Rule::any ||
                    (rule.protocol == tuple.protocol && rule.from == 0 && rule.to == 65535));
        });
    }
    bool needs_no_tracking(const ModelPacket& packet) const {
        if (!is_tcp(packet) && !is_udp(packet))
            return false;
        const auto there = packet.direction;
        const auto back = opposite(there);
        if (admitted(packet, there, true) && open_on_all_ports(back, packet.tuple))
            return true;
        return replies_untracked(packet);
    }
    // Its own port is open to everyone, and this direction on all ports.
    bool replies_untracked(const ModelPacket& packet) const {
        const auto there = packet.direction;
        const auto back = opposite(there);
        auto reply = packet;
        std::swap(reply.tuple.source, reply.tuple.destination);
        std::swap(reply.tuple.source_port, reply.tuple.destination_port);
        return !is_syn(packet) && admitted(reply, back, true) &&
               open_on_all_ports(there, packet.tuple);
    }

    // The guest's part of a flow that earlier rules left untracked.
    bool is_left_over(const ModelPacket& packet) const {
        return is_tcp(packet) && packet.direction == Direction::Egress &&
               std::ranges::any_of(earlier_, [&](const RuleSet& before) {
                   Model then;
                   then.rules = before;
                   return then.replies_untracked(packet);
               });
    }

    // --- flows ---

    // The request's type, and whether this is the reply to it.
    static std::optional<std::pair<int, bool>> query_type(const ModelPacket& packet) {
        const int type = packet.tuple.icmp_type();
        static const std::vector<std::pair<int, int>> v4{{8, 0}, {13, 14}, {15, 16}, {17, 18}};
        static const std::vector<std::pair<int, int>> v6{{128, 129}};
        for (const auto& [request, reply] : packet.tuple.protocol == 1 ? v4 : v6)
            if (type == request || type == reply)
                return std::pair(request, type == reply);
        return std::nullopt;
    }
    static std::string name_of(const ModelPacket& packet) {
        const auto& t = packet.tuple;
        const bool out = packet.direction == Direction::Egress;
        const auto local = to_string(out ? t.source : t.destination);
        const auto remote = to_string(out ? t.destination : t.source);
        auto name = fmt::format("{} {} {}", t.protocol, local, remote);
        if (is_tcp(packet) || is_udp(packet))
            name += fmt::format(" {} {}", out ? t.source_port : t.destination_port,
                                out ? t.destination_port : t.source_port);
        if (const auto query = is_icmp(packet) ? query_type(packet) : std::nullopt)
            name += fmt::format(" {} {} {}", t.source_port, query->first,
                                out != query->second ? "asked by guest" : "asked by other");
        return name;
    }
    static bool begins(const ModelPacket& packet) {
        if (is_tcp(packet))
            return !has(packet, tcp_flag::rst);
        return !is_icmp(packet) || !query_type(packet)->second;
    }
    static bool starts_over(const Line& line, const ModelPacket& packet) {
        return is_syn(packet) && (line.state == "time-wait" || line.state == "closed");
    }
    Nanoseconds patience(const std::string& state) const {
        const std::map<std::string, std::uint64_t> seconds{
            {"syn-sent", 120},
            {"syn-received", 60},
            {"midstream", 120},
            {"fin-wait", 120},
            {"close-wait", 60},
            {"last-ack", 30},
            {"time-wait", 120},
            {"closed", 10},
            {"icmp", 30},
            {"other", 600},
            {"established", rules.timeouts.tcp_established},
            {"udp 1", rules.timeouts.udp},
            {"udp 2", rules.timeouts.udp},
            {"udp 3", rules.timeouts.udp},
            {"udp 4", rules.timeouts.udp_stream}};
        return seconds.at(state) * 1'000'000'000;
    }
    Line first_line(const ModelPacket& packet, Nanoseconds now) const {
        Line line{.name = name_of(packet), .first = packet.direction, .state = "other"};
        if (is_tcp(packet)) {
            line.state = is_syn(packet) ? "syn-sent" : "midstream";
            if (has(packet, tcp_flag::fin))
                line.closed.insert(packet.direction);
        } else if (is_udp(packet)) {
            line.state = "udp 1";
        } else if (is_icmp(packet)) {
            line.state = "icmp";
        }
        line.until = now + patience(line.state);
        return line;
    }
    void go_on(Line& line, const ModelPacket& packet, Nanoseconds now) const {
        const bool by_first = packet.direction == line.first;
        if (is_udp(packet)) {
            // Odd steps are taken by the one who began, even ones by the other.
            const std::vector<std::string> steps{"udp 1", "udp 2", "udp 3", "udp 4"};
            const auto at =
                static_cast<std::size_t>(std::ranges::find(steps, line.state) - steps.begin());
            if (at < 3 && (at % 2 == 0) != by_first)
                line.state = steps[at + 1];
        }
        if (is_tcp(packet) && !tcp_goes_on(line, packet, by_first, now))
            return;
        line.until = now + patience(line.state);
    }
    // False when the packet leaves the waiting time as it is.
    bool tcp_goes_on(Line& line, const ModelPacket& packet, bool by_first, Nanoseconds now) const {
        auto& state = line.state;
        if (state == "closed")
            return false;
        if (has(packet, tcp_flag::rst)) {
            state = "closed";
            line.until = std::min(line.until, now + patience(state));
            return false;
        }
        if (has(packet, tcp_flag::syn)) {
            const bool answer = has(packet, tcp_flag::ack);
            if (!answer && state != "syn-sent" && state != "syn-received")
                return false;
            if (state == "syn-sent" && !by_first)
                state = "syn-received";
            if (answer && state == "midstream" && !by_first)
                state = "established";
            return true;
        }
        if ((state == "midstream" && !by_first) || (state == "syn-received" && by_first))
            state = "established";
        if (has(packet, tcp_flag::fin) && state != "syn-sent") {
            line.closed.insert(packet.direction);
            if (line.closed.size() == 2)
                state = state == "time-wait" ? state : "last-ack";
            else
                state = state == "close-wait" ? state : "fin-wait";
        } else if (state == "fin-wait" && line.closed.contains(opposite(packet.direction))) {
            state = "close-wait";
        } else if (state == "last-ack") {
            state = "time-wait";
        }
        return true;
    }

    std::list<Line> flows_;
    std::vector<RuleSet> earlier_;
};

}  // namespace masu::net::fake
