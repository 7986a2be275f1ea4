// Frames both ways through a firewall with every kind of rule: nothing may be read beyond what was
// copied, what passes must be of the guest's own, and state must survive being saved.
#include <cstdint>
#include <memory>

#include "devices/net/firewall/firewall.hpp"
#include "devices/net/flow_log.hpp"
#include "tests/fuzz/input.hpp"

using namespace masu;
using namespace masu::net;
using masu::fuzz::Input;
using masu::fuzz::require;

namespace {

constexpr MacAddress guest_mac{6, 0, 0, 0, 0, 1};
const Address own4 = Address::v4(0x0a00000a);
const Address own6 = Address::v6(0x20010db8'00000000, 0x10);

RuleSet rules(unsigned choice) {
    RuleSet set;
    const auto add = [&set](Direction direction, int protocol, int from, int to, Peer peer) {
        set.rules.push_back({.id = "r" + std::to_string(set.rules.size()),
                             .direction = direction,
                             .protocol = protocol,
                             .from = from,
                             .to = to,
                             .peer = std::move(peer)});
    };
    const Prefix everyone4{Address::v4(0), 0};
    const Prefix everyone6{Address::v6(0, 0), 0};
    if ((choice & 1) != 0) {
        add(Direction::Ingress, -1, -1, -1, everyone4);
        add(Direction::Ingress, -1, -1, -1, everyone6);
    }
    if ((choice & 2) != 0) {
        add(Direction::Egress, -1, -1, -1, everyone4);
        add(Direction::Egress, -1, -1, -1, everyone6);
    }
    if ((choice & 4) != 0) {
        add(Direction::Ingress, 6, 22, 80, Prefix::canonical(Address::v4(0xcb007105), 24));
        add(Direction::Ingress, 1, 8, -1, everyone4);
    }
    if ((choice & 8) != 0)
        add(Direction::Egress, 6, 443, 443, DnsName{"*.org"});
    set.related_icmp_errors = (choice & 16) != 0;
    return set;
}

std::unique_ptr<Firewall> make(unsigned choice) {
    InterfaceConfig config;
    config.mac = guest_mac;
    config.addresses = {own4, own6};
    config.local = {Address::v4(0xa9fea9fe)};
    config.resolvers = {Address::v4(0x0a000002)};
    config.source_dest_check = (choice & 32) == 0;
    auto firewall = Firewall::create(config, {.max_flows = 64, .max_names = 32});
    require(firewall.has_value());
    const auto compiled = compile(rules(choice), {});
    require(compiled.has_value());
    (*firewall)->replace_rules(*compiled);
    return std::move(*firewall);
}

void check(const Firewall& firewall, Direction direction, const Verdict& verdict, bool checked) {
    if (verdict.action == Action::Answer)
        require(direction == Direction::Egress && !firewall.answer().empty());
    if (verdict.action == Action::Local)
        require(direction == Direction::Egress);
    if (!verdict.passes())
        return;
    const auto* packet = firewall.last_packet();
    require(packet != nullptr);
    if (direction == Direction::Egress)
        require(packet->source_mac == guest_mac);
    if (!checked || packet->kind != Packet::Kind::Ip || verdict.reason == Reason::NeighborTraffic ||
        verdict.reason == Reason::ExemptService)
        return;
    const auto& end =
        direction == Direction::Egress ? packet->tuple.source : packet->tuple.destination;
    require(end == own4 || end == own6 || end.is_link_local_v6());
}

}  // namespace

// Byte 0: the rules. Then frames: direction and clock, how much is copied, the size, the bytes.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input(data, size);
    const auto choice = input.take<std::uint8_t>();
    auto firewall = make(choice);
    FlowLog log({1, 2});
    firewall->set_flow_log(&log);
    Nanoseconds now = 1;
    for (int count = 0; count < 64 && !input.done(); ++count) {
        const auto control = input.take<std::uint8_t>();
        const auto direction = (control & 1) != 0 ? Direction::Egress : Direction::Ingress;
        now += static_cast<Nanoseconds>(control >> 4) * 5'000'000'000;
        const auto bytes = input.take_bytes(input.take<std::uint16_t>() % 1600);
        // A copy of its own, so that the sanitizer sees every read beyond it.
        const auto copied = (control & 2) != 0 ? bytes.size() / 2 : bytes.size();
        const std::vector<std::byte> copy(bytes.begin(), bytes.begin() + copied);
        const Frame frame{copy, static_cast<std::uint32_t>(bytes.size())};
        auto verdict = firewall->judge(direction, frame, now);
        if (verdict.action == Action::NeedWholeFrame) {
            const std::vector<std::byte> whole(bytes.begin(), bytes.end());
            verdict = firewall->judge(direction, {whole, frame.length}, now);
            require(verdict.action != Action::NeedWholeFrame);
        }
        check(*firewall, direction, verdict, (choice & 32) == 0);
        if ((control & 4) != 0)
            firewall->replace_rules(*compile(rules(choice ^ control), {}));
    }
    require(log.take().records.size() <= FlowLog::max_records);
    const auto state = firewall->save(now);
    auto again = make(choice);
    require(again->load(state, now).has_value());
    require(again->flow_count() <= firewall->flow_count());
    return 0;
}
