// The switch between VMs: any bytes in any pieces from any port. What comes out of another port is
// well framed, was sent by the port whose MAC it bears, and came in before.
#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <cstdlib>

#include "devices/net/firewall/wire.hpp"
#include "devices/net/switch/frame_switch.hpp"
#include "tests/fuzz/input.hpp"

using namespace masu;
using namespace masu::net;
using fuzz::Input;
using fuzz::require;

namespace {

constexpr std::size_t port_count = 3;

PortAddresses addresses_of(std::size_t port) {
    const auto last = static_cast<std::uint8_t>(4 + port);
    return {{6, 1, 10, 0, 0, last},
            Address::v4(0x0a000000U + last),
            port == 2 ? std::nullopt : std::optional(Address::v6(0xfd00'0000'0000'0000U, last))};
}

// Takes what has arrived at a port's end, and checks it.
void check_output(int socket, std::size_t port) {
    static std::vector<std::byte> buffer(1 << 20);
    std::size_t have = 0;
    for (;;) {
        const auto got = ::recv(socket, &buffer[have], buffer.size() - have, MSG_DONTWAIT);
        if (got <= 0)
            break;
        have += static_cast<std::size_t>(got);
    }
    auto rest = std::span<const std::byte>(buffer).first(have);
    while (!rest.empty()) {
        require(rest.size() >= 4);
        const std::size_t length = get32(rest.data());
        require(length >= ethernet_header_size && length <= max_frame_size &&
                rest.size() >= 4 + length);
        const auto frame = rest.subspan(4, length);
        Packet packet;
        require(!parse_packet({frame, static_cast<std::uint32_t>(length)}, packet));
        bool known = false;
        for (std::size_t from = 0; from < port_count; ++from)
            if (from != port && packet.source_mac == addresses_of(from).mac) {
                known = true;
                const auto own = addresses_of(from);
                if (packet.kind == Packet::Kind::Arp)
                    require(packet.arp.sender_mac == own.mac);
                else
                    require(packet.tuple.source == own.ipv4 || packet.tuple.source == own.ipv6 ||
                            packet.tuple.source == link_local_of(own.mac) ||
                            (packet.is_ndp && packet.tuple.source.is_unspecified()));
            }
        require(known);
        rest = rest.subspan(4 + length);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    auto loop = EventLoop::create();
    if (!loop)
        std::abort();
    std::size_t left = 0;
    FrameSwitch hub(**loop, [&](const FrameSwitch::Port&) { ++left; });
    std::array<Fd, port_count> sockets;
    for (std::size_t port = 0; port < port_count; ++port) {
        int ends[2];
        if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0)
            std::abort();
        sockets[port].reset(ends[0]);
        if (!hub.add(Fd(ends[1]), std::to_string(port), addresses_of(port)))
            std::abort();
    }
    Input input(data, size);
    while (!input.done()) {
        // The port and, with the highest bit, whether the switch adds the frame's length and MAC.
        const auto choice = input.take<std::uint8_t>();
        const std::size_t port = choice % port_count;
        auto piece = input.take_bytes(input.take<std::uint16_t>());
        std::vector<std::byte> framed;
        if ((choice & 0x80) != 0 && piece.size() >= ethernet_header_size) {
            framed.resize(4);
            put32(framed.data(), static_cast<std::uint32_t>(piece.size()));
            framed.insert(framed.end(), piece.begin(), piece.end());
            for (std::size_t i = 0; i < 6; ++i)
                framed[10 + i] = std::byte{addresses_of(port).mac[i]};
            piece = framed;
        }
        if (!piece.empty())
            std::ignore = ::send(sockets[port].get(), piece.data(), piece.size(),
                                 MSG_NOSIGNAL | MSG_DONTWAIT);
        for (int turn = 0; turn < 3; ++turn)
            (*loop)->run_once(0);
        for (std::size_t i = 0; i < port_count; ++i)
            check_output(sockets[i].get(), i);
    }
    require(left + hub.size() == port_count);
    return 0;
}
