// Rules turned into tables: which rule admits a packet costs two binary searches and one AND of two
// bit rows, however many rules there are.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "devices/net/firewall/packet.hpp"
#include "devices/net/firewall/rules.hpp"

namespace masu::net {

// One bit a port.
using PortSet = std::bitset<65536>;

// The rules of one direction, family and kind of protocol. Every rule is a rectangle: a range of
// "ports" (of ICMP type << 8 | code, of other protocols the protocol's number) times a set of
// address ranges. The ports are cut into intervals on which the set of rules does not change, the
// addresses likewise; each interval has a row with one bit a rule. Both rows share a set bit
// exactly when a rule admits the packet. Rules for everyone need no row: each port interval names
// one.
template <class Bits>
class Classifier {
  public:
    struct Range {
        Bits first;
        Bits last;
        std::uint32_t local;  // which rule, counted within this classifier
    };
    struct Input {
        std::uint16_t from;
        std::uint16_t to;
        std::uint32_t rule;  // index into CompiledRules::rules()
        bool everyone;
    };

    Classifier() { build({}, {}); }
    // `ranges` name the inputs that are not for everyone, by their place in `inputs`.
    void build(std::span<const Input> inputs, std::vector<Range> ranges);

    // The rule for everyone that covers the port, or Verdict::no_rule.
    [[nodiscard]] std::uint32_t open_rule(std::uint16_t port) const noexcept {
        return port_class(port).open_rule;
    }
    // Adds all ports that a rule for everyone covers.
    void add_open_ports(PortSet& ports) const noexcept;
    // Some rule that covers the port and the address; of several the one with the lowest index,
    // those for everyone first.
    [[nodiscard]] std::uint32_t match(std::uint16_t port, const Bits& address) const noexcept;

  private:
    struct PortClass {
        std::uint32_t open_rule;
        std::uint32_t row;
    };
    [[nodiscard]] const PortClass& port_class(std::uint16_t port) const noexcept;

    class RowPool;
    void build_ports(std::span<const Input> inputs, RowPool& pool);
    void build_addresses(std::vector<Range> ranges, RowPool& pool);
    [[nodiscard]] std::span<const std::uint64_t> row(std::uint32_t index) const noexcept {
        return {rows_.data() + index * words_, words_};
    }

    // starts_[i] is where interval i begins; the first begins at 0, so there always is one.
    std::vector<std::uint16_t> port_starts_;
    std::vector<PortClass> port_classes_;
    std::vector<Bits> address_starts_;
    std::vector<std::uint32_t> address_rows_;
    std::vector<std::uint64_t> rows_;   // row r begins at r * words_
    std::vector<std::uint32_t> rules_;  // by bit
    std::size_t words_ = 0;
};

struct V6Bits {
    std::uint64_t high = 0;
    std::uint64_t low = 0;
    constexpr auto operator<=>(const V6Bits&) const noexcept = default;
};

class CompiledRules {
  public:
    static constexpr std::size_t max_names = 256;

    // A name and what is allowed to the addresses it stands for.
    struct NameRule {
        std::int16_t protocol;  // 0-255 or Rule::any
        std::uint16_t from;     // as a Classifier's port
        std::uint16_t to;
        std::uint32_t rule;
    };
    struct NamePattern {
        std::string pattern;
        std::vector<NameRule> rules;
        [[nodiscard]] std::uint32_t match(const Tuple& tuple) const noexcept;
    };

    struct Match {
        std::uint32_t rule = Verdict::no_rule;
        bool everyone = false;  // by a rule that is open to everyone
    };
    // What admits a packet that goes in `direction`; the peer is its source on ingress, its
    // destination on egress. Name rules take no part.
    [[nodiscard]] Match match(Direction direction, const Tuple& tuple) const noexcept;

    // Whether a TCP or UDP flow needs no tracking: `match` found a rule for everyone, and the other
    // direction is open to everyone on all ports; or the packet is a reply to such a flow.
    [[nodiscard]] bool untracked(Direction direction, const Tuple& tuple, bool matched_everyone,
                                 bool begins_flow) const noexcept;

    // Adds the guest's TCP ports that everyone may come to without a flow being kept of it.
    void add_untracked_ports(Family family, PortSet& ports) const noexcept;

    // By Verdict::rule.
    [[nodiscard]] std::span<const std::string> rules() const noexcept { return ids_; }
    [[nodiscard]] std::span<const NamePattern> names() const noexcept { return names_; }
    [[nodiscard]] const FlowTimeouts& timeouts() const noexcept { return timeouts_; }
    [[nodiscard]] bool related_icmp_errors() const noexcept { return related_icmp_errors_; }
    [[nodiscard]] bool private_name_answers() const noexcept { return private_name_answers_; }

  private:
    friend class RuleCompiler;
    enum class Kind : std::uint8_t { Tcp, Udp, Icmp, Other };
    static constexpr std::size_t kind_count = 4;
    [[nodiscard]] static Kind kind_of(std::uint8_t protocol) noexcept;
    [[nodiscard]] static std::uint16_t port_of(Kind kind, const Tuple& tuple) noexcept;
    [[nodiscard]] std::uint32_t open_rule(Direction direction, Family family, Kind kind,
                                          std::uint16_t port) const noexcept;

    template <class Bits>
    using Table = std::array<std::array<Classifier<Bits>, kind_count>, 2>;  // direction, kind
    Table<std::uint32_t> v4_;
    Table<V6Bits> v6_;
    // [family][direction][kind]: a rule for everyone on all ports.
    std::array<std::array<std::array<bool, kind_count>, 2>, 2> all_ports_{};
    std::vector<std::string> ids_;
    std::vector<NamePattern> names_;
    FlowTimeouts timeouts_;
    bool related_icmp_errors_ = true;
    bool private_name_answers_ = false;
};

}  // namespace masu::net
