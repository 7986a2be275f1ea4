// Exchanging two MAC addresses wherever a frame names them.
#include "devices/net/mac_translation.hpp"

#include <algorithm>
#include <cstring>
#include <optional>

#include "base/bytes.hpp"
#include "devices/net/frame.hpp"
#include "devices/net/services/dhcp.hpp"

namespace masu::net {
namespace {

constexpr std::size_t mac_size = sizeof(MacAddress);
constexpr std::size_t tag_size = 4;
constexpr int max_tags = 2;
constexpr std::size_t ipv6_header_size = 40;
constexpr std::size_t udp_header_size = 8;
constexpr std::uint16_t hardware_ethernet = 1;  // RFC 826; of DHCP too

bool is_tag(std::uint16_t ethertype) {
    return ethertype == 0x8100 || ethertype == 0x88a8;
}

// Where the options of a neighbour discovery message begin (RFC 4861, 4.1 to 4.5).
std::optional<std::size_t> discovery_options(std::uint8_t type) {
    switch (type) {
        case 133:  // router solicitation
            return 8;
        case 134:  // router advertisement
            return 16;
        case 135:  // neighbour solicitation
        case 136:  // neighbour advertisement
            return 24;
        case 137:  // redirect
            return 40;
        default:
            return std::nullopt;
    }
}

bool is_dhcp_port(std::uint16_t port) {
    return port == dhcp_server_port || port == dhcp_client_port;
}

}  // namespace

// What an Internet checksum covers of a frame, from the transport header on and as far as it is at
// hand. Keeps track of what changes in it.
class MacTranslation::Checksummed {
  public:
    Checksummed(const MacTranslation& translation, std::span<std::byte> bytes) noexcept
        : translation_(translation), bytes_(bytes) {}

    [[nodiscard]] std::size_t size() const noexcept { return bytes_.size(); }
    // Unchecked.
    [[nodiscard]] std::uint8_t byte(std::size_t at) const noexcept { return get8(&bytes_[at]); }
    [[nodiscard]] const std::byte* at(std::size_t offset) const noexcept { return &bytes_[offset]; }

    // What is not there whole stays.
    void exchange(std::size_t offset) noexcept {
        if (offset + mac_size > bytes_.size())
            return;
        // The sum is one of 16-bit words: an address at an odd offset shares two with its
        // neighbours.
        const auto from = offset & ~std::size_t{1};
        const auto to = std::min((offset + mac_size + 1) & ~std::size_t{1}, bytes_.size());
        const auto words = bytes_.subspan(from, to - from);
        const auto before = checksum_add(0, words);
        if (translation_.exchange(&bytes_[offset]))
            difference_ = checksum_add(difference_ + (~before & 0xffff), words);
    }

    // RFC 1624, equation 3. UDP sends a sum of zero as all ones, and a zero where it has none.
    void update(std::size_t field, bool udp) noexcept {
        if (difference_ == 0 || field + 2 > bytes_.size())
            return;
        const auto old = get16(&bytes_[field]);
        if (udp && old == 0)
            return;
        const auto sum = checksum_finish((~old & 0xffffU) + difference_);
        put16(&bytes_[field], udp && sum == 0 ? 0xffff : sum);
    }

  private:
    const MacTranslation& translation_;
    std::span<std::byte> bytes_;
    std::uint32_t difference_ = 0;  // of the sum, one's complement; 0: nothing has changed
};

bool MacTranslation::exchange(std::byte* mac) const noexcept {
    const auto now = get_mac(mac);
    if (now != guest_ && now != network_)
        return false;
    const auto& other = now == guest_ ? network_ : guest_;
    std::memcpy(mac, other.data(), other.size());
    return true;
}

void MacTranslation::exchange_in_arp(std::span<std::byte> frame) const noexcept {
    constexpr std::size_t sender = ethernet_header_size + 8;
    constexpr std::size_t target = sender + mac_size + 4;
    const auto* arp = &frame[0] + ethernet_header_size;
    if (frame.size() < target + mac_size || get16(arp) != hardware_ethernet ||
        get16(arp + 2) != ethertype_ipv4 || get8(arp + 4) != mac_size || get8(arp + 5) != 4)
        return;
    exchange(&frame[sender]);
    exchange(&frame[target]);
}

void MacTranslation::exchange_in_discovery(Checksummed& message) const noexcept {
    constexpr std::uint8_t source_link_address = 1;
    constexpr std::uint8_t target_link_address = 2;
    const auto options = message.size() != 0 ? discovery_options(message.byte(0)) : std::nullopt;
    if (!options)
        return;
    for (auto at = *options; at + 2 <= message.size();) {
        const auto kind = message.byte(at);
        const std::size_t size = std::size_t{8} * message.byte(at + 1);
        if (size == 0)  // RFC 4861, 4.6: such a packet is dropped by who gets it
            return;
        // RFC 2464, 6: of Ethernet, the option is 8 bytes.
        if ((kind == source_link_address || kind == target_link_address) && size == 2 + mac_size)
            message.exchange(at + 2);
        at += size;
    }
}

void MacTranslation::exchange_in_dhcp(Checksummed& message) const noexcept {
    // RFC 2131, 2: the message behind the UDP header; RFC 2132: its options.
    constexpr std::size_t hardware = udp_header_size + 1;
    constexpr std::size_t client_address = udp_header_size + 28;
    constexpr std::size_t cookie = udp_header_size + 236;
    constexpr std::uint8_t pad = 0;
    constexpr std::uint8_t client_identifier = 61;
    constexpr std::uint8_t end = 255;
    if (message.size() < client_address + mac_size || message.byte(hardware) != hardware_ethernet ||
        message.byte(hardware + 1) != mac_size)
        return;
    message.exchange(client_address);
    if (message.size() < cookie + 4 || get32(message.at(cookie)) != dhcp_magic_cookie)
        return;
    for (auto at = cookie + 4; at + 2 <= message.size();) {
        const auto code = message.byte(at);
        if (code == end)
            return;
        if (code == pad) {
            ++at;
            continue;
        }
        const std::size_t size = message.byte(at + 1);
        if (code == client_identifier && size == 1 + mac_size && at + 2 < message.size() &&
            message.byte(at + 2) == hardware_ethernet)
            message.exchange(at + 3);
        at += 2 + size;
    }
}

void MacTranslation::apply(const NetHeader& header, std::span<std::byte> frame) const noexcept {
    frame = frame.first(std::min(frame.size(), depth));
    if (frame.size() < ethernet_header_size)
        return;
    exchange(&frame[0]);
    exchange(&frame[mac_size]);
    // Without its first bytes, a tagged frame has all behind its tag where an untagged one has it.
    std::size_t tags = 0;
    for (int i = 0; i < max_tags && is_tag(get16(&frame[12])) &&
                    frame.size() >= ethernet_header_size + tag_size;
         ++i) {
        frame = frame.subspan(tag_size);
        tags += tag_size;
    }
    if (get16(&frame[12]) == ethertype_arp) {
        exchange_in_arp(frame);
        return;
    }
    const auto place = find_transport(frame);
    if (!place)
        return;
    // What a frame holds behind its packet (Ethernet's padding) is under no checksum.
    auto covered = frame.size();
    std::size_t field = 0;
    const bool udp = !place->ipv6 && place->protocol == protocol_udp;
    if (udp) {
        if (!is_dhcp_port(get16(&frame[place->offset + 2])))
            return;
        covered = place->offset + get16(&frame[place->offset + 4]);
        field = 6;
    } else if (place->ipv6 && place->protocol == protocol_icmpv6) {
        covered = ethernet_header_size + ipv6_header_size + get16(&frame[ethernet_header_size + 4]);
        field = 2;
    } else {
        return;
    }
    covered = std::min(covered, frame.size());
    if (covered < place->offset)
        return;
    Checksummed message(*this, frame.subspan(place->offset, covered - place->offset));
    if (udp)
        exchange_in_dhcp(message);
    else
        exchange_in_discovery(message);
    // 5.1.6.2.1: with NEEDS_CSUM the field holds the pseudo header's sum, in which no MAC is.
    const bool completed_later = (header.flags & hdr_f_needs_csum) != 0 &&
                                 header.csum_start == tags + place->offset &&
                                 header.csum_offset == field;
    if (!completed_later)
        message.update(field, udp);
}

Received TranslatingBackend::receive(unsigned queue, std::span<std::byte> buffer) noexcept {
    const auto received = wire_->receive(queue, buffer);
    if (received.status == IoStatus::Done && received.size > sizeof(NetHeader))
        translation_.apply(load_unaligned<NetHeader>(buffer.data()),
                           buffer.subspan(sizeof(NetHeader), received.size - sizeof(NetHeader)));
    return received;
}

IoStatus TranslatingBackend::send(unsigned queue, std::span<const iovec> packet) noexcept {
    if (packet.size() >= 2 && packet[0].iov_len == sizeof(NetHeader))
        translation_.apply(
            load_unaligned<NetHeader>(static_cast<const std::byte*>(packet[0].iov_base)),
            {static_cast<std::byte*>(packet[1].iov_base), packet[1].iov_len});
    return wire_->send(queue, packet);
}

}  // namespace masu::net
