// Flows and admitted names as bytes, for snapshots: written with the time they have left, and read
// back only when every field could have been written by save().
#include <cstring>
#include <string>
#include <type_traits>

#include "base/bytes.hpp"
#include "devices/net/firewall/firewall_state.hpp"

namespace masu::net {
namespace {

constexpr std::uint64_t magic = 0x31305746'5553414d;  // "MASUFW01"
constexpr Nanoseconds second = 1'000'000'000;
// Longer than any flow may be idle.
constexpr Nanoseconds max_left = 432'000 * second;

class Writer {
  public:
    template <class T>
        requires std::is_arithmetic_v<T>
    void put(T value) {
        const auto at = bytes_.size();
        bytes_.resize(at + sizeof value);
        store_unaligned(&bytes_[at], value);
    }
    void put(const std::string& text) {
        put(static_cast<std::uint16_t>(text.size()));
        const auto* from = reinterpret_cast<const std::byte*>(text.data());
        bytes_.insert(bytes_.end(), from, from + text.size());
    }
    void put(const Address& address) {
        put(std::to_underlying(address.family));
        put(address.high);
        put(address.low);
    }
    [[nodiscard]] std::vector<std::byte> take() { return std::move(bytes_); }

  private:
    std::vector<std::byte> bytes_;
};

// After the first field that is not there, all is 0 and good() false.
class Reader {
  public:
    explicit Reader(std::span<const std::byte> bytes) : rest_(bytes) {}
    template <class T>
        requires std::is_arithmetic_v<T>
    [[nodiscard]] T take() {
        if (rest_.size() < sizeof(T)) {
            good_ = false;
            rest_ = {};
            return 0;
        }
        const auto value = load_unaligned<T>(rest_.data());
        rest_ = rest_.subspan(sizeof(T));
        return value;
    }
    [[nodiscard]] std::string take_text() {
        const std::size_t size = take<std::uint16_t>();
        if (size > rest_.size()) {
            good_ = false;
            return {};
        }
        std::string text(reinterpret_cast<const char*>(rest_.data()), size);
        rest_ = rest_.subspan(size);
        return text;
    }
    [[nodiscard]] Address take_address() {
        const auto family = take<std::uint8_t>();
        Address address{family == 0 ? Family::V4 : Family::V6, take<std::uint64_t>(),
                        take<std::uint64_t>()};
        if (family > 1 || (family == 0 && (address.high != 0 || address.low > 0xffff'ffffU)))
            good_ = false;
        return address;
    }
    [[nodiscard]] std::size_t left() const { return rest_.size(); }
    [[nodiscard]] bool good() const { return good_; }

  private:
    std::span<const std::byte> rest_;
    bool good_ = true;
};

void put_bits(Writer& writer, std::uint32_t bits) {
    writer.put(bits);
}
void put_bits(Writer& writer, const V6Bits& bits) {
    writer.put(bits.high);
    writer.put(bits.low);
}
void take_bits(Reader& reader, std::uint32_t& bits) {
    bits = reader.take<std::uint32_t>();
}
void take_bits(Reader& reader, V6Bits& bits) {
    bits.high = reader.take<std::uint64_t>();
    bits.low = reader.take<std::uint64_t>();
}

template <class Bits>
void put_flows(Writer& writer, const FlowTable<Bits>& flows, Nanoseconds now) {
    std::uint64_t count = 0;
    flows.for_each_live(now, [&count](const auto&) { ++count; });
    writer.put(count);
    flows.for_each_live(now, [&](const Flow<Bits>& flow) {
        put_bits(writer, flow.local);
        put_bits(writer, flow.remote);
        writer.put(flow.local_port);
        writer.put(flow.remote_port);
        writer.put(flow.protocol);
        writer.put(std::to_underlying(flow.state));
        writer.put(std::to_underlying(flow.initiator));
        writer.put(flow.marks);
        writer.put(flow.acknowledged[0]);
        writer.put(flow.acknowledged[1]);
        writer.put(flow.expires - now);
    });
}

bool state_fits(FlowState state, std::uint8_t number) {
    switch (number) {
        case protocol::tcp:
            return state >= FlowState::SynSent && state <= FlowState::Closed;
        case protocol::udp:
            return state >= FlowState::UdpOneWay && state <= FlowState::UdpStream;
        case protocol::icmp:
        case protocol::icmpv6:
            return state == FlowState::IcmpQuery;
        default:
            return state == FlowState::Other;
    }
}

template <class Bits>
Result<std::vector<Flow<Bits>>> take_flows(Reader& reader, std::size_t limit) {
    // What a flow takes at least, so that a count cannot ask for more memory than the state is
    // long.
    constexpr std::size_t size = 2 * sizeof(Bits) + 4 + 4 + 8 + 8;
    const auto count = reader.take<std::uint64_t>();
    if (count > limit || count > reader.left() / size)
        return fail(
            "firewall state: holds {} flows, which it is too short for, or which are more "
            "than {}",
            count, limit);
    std::vector<Flow<Bits>> flows(count);
    for (auto& flow : flows) {
        take_bits(reader, flow.local);
        take_bits(reader, flow.remote);
        flow.local_port = reader.take<std::uint16_t>();
        flow.remote_port = reader.take<std::uint16_t>();
        flow.protocol = reader.take<std::uint8_t>();
        flow.state = static_cast<FlowState>(reader.take<std::uint8_t>());
        const auto initiator = reader.take<std::uint8_t>();
        flow.initiator = static_cast<Direction>(initiator);
        flow.marks = reader.take<std::uint8_t>();
        flow.acknowledged[0] = reader.take<std::uint32_t>();
        flow.acknowledged[1] = reader.take<std::uint32_t>();
        flow.expires = reader.take<std::uint64_t>();
        if (initiator > 1 || flow.marks > 15 || flow.expires > max_left ||
            !state_fits(flow.state, flow.protocol))
            return fail("firewall state: holds a flow that cannot be");
    }
    return flows;
}

template <class Bits>
void add(FlowTable<Bits>& table, const std::vector<Flow<Bits>>& flows, Nanoseconds now) {
    for (const auto& flow : flows) {
        const auto hash = table.hash(flow.key());
        auto* slot = table.find(flow.key(), hash, now);
        if (slot == nullptr)
            slot = table.insert(flow.key(), hash, now);
        if (slot == nullptr)
            return;
        *slot = flow;
        slot->expires += now;
    }
}

}  // namespace

std::vector<std::byte> Firewall::save(Nanoseconds now) const {
    const auto& state = *state_;
    now = std::max(now, state.now);
    Writer writer;
    writer.put(magic);
    put_flows(writer, state.flows4, now);
    put_flows(writer, state.flows6, now);
    const auto names = state.names.admissions(now);
    writer.put(static_cast<std::uint32_t>(names.size()));
    for (const auto& name : names) {
        writer.put(name.pattern);
        writer.put(name.address);
        writer.put(name.expires - now);
    }
    writer.put(static_cast<std::uint8_t>(state.learned_count));
    for (std::size_t i = 0; i < state.learned_count; ++i)
        writer.put(state.learned[i]);
    writer.put(state.dhcp_server);
    return writer.take();
}

Result<> Firewall::load(std::span<const std::byte> bytes, Nanoseconds now) {
    auto& state = *state_;
    now = std::max(now, state.now);
    Reader reader(bytes);
    if (reader.take<std::uint64_t>() != magic)
        return fail("firewall state: is none, or of another version of Masu");
    const std::size_t limit = state.limits.max_flows + FirewallState::exempt_reserve;
    const auto flows4 = TRY(take_flows<std::uint32_t>(reader, limit));
    const auto flows6 = TRY(take_flows<V6Bits>(reader, limit));
    const auto name_count = reader.take<std::uint32_t>();
    if (name_count > reader.left() / 27)
        return fail("firewall state: too short for the {} names it holds", name_count);
    std::vector<NameTable::Admission> names(name_count);
    for (auto& name : names) {
        name.pattern = reader.take_text();
        name.address = reader.take_address();
        name.expires = reader.take<std::uint64_t>();
        if (name.expires > NameTable::max_lifetime)
            return fail("firewall state: holds a name that cannot be");
    }
    const auto learned_count = reader.take<std::uint8_t>();
    if (learned_count > FirewallState::max_learned)
        return fail("firewall state: holds {} learned addresses", learned_count);
    std::array<Address, FirewallState::max_learned> learned{};
    for (std::size_t i = 0; i < learned_count; ++i)
        learned[i] = reader.take_address();
    const auto dhcp_server = reader.take_address();
    if (!reader.good() || reader.left() != 0 || flows4.size() + flows6.size() > limit)
        return fail("firewall state: has the wrong length");

    add(state.flows4, flows4, now);
    add(state.flows6, flows6, now);
    for (auto& name : names) {
        name.expires += now;
        state.names.restore(name);
    }
    state.learned = learned;
    state.learned_count = learned_count;
    state.dhcp_server = dhcp_server;
    return {};
}

}  // namespace masu::net
