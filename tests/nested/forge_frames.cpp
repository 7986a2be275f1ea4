// forge-frames send INTERFACE MAC OWN-IPV4 OTHER-IPV4: frames that a guest must not send, and
// honest ones, each with its name in it. forge-frames watch INTERFACE: prints the names of those
// that come.
//
// MAC and OWN-IPV4 are the sender's own; OTHER-IPV4 is the host's, whom it also claims to be.
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace {

using Bytes = std::vector<std::uint8_t>;
using Mac = std::array<std::uint8_t, 6>;

constexpr std::string_view mark = "forge-frames:";
constexpr Mac everyone{255, 255, 255, 255, 255, 255};
constexpr Mac stranger{6, 1, 2, 3, 4, 5};
constexpr std::uint16_t private_experiment = 0x88b5;  // IEEE 802, local experimental EtherType 1

void put16(Bytes& bytes, unsigned value) {
    bytes.push_back(static_cast<std::uint8_t>(value >> 8));
    bytes.push_back(static_cast<std::uint8_t>(value));
}
template <class Range>
void append(Bytes& bytes, const Range& more) {
    bytes.insert(bytes.end(), more.begin(), more.end());
}
void append_ipv4(Bytes& bytes, const in_addr& address) {
    const auto* from = reinterpret_cast<const std::uint8_t*>(&address.s_addr);
    bytes.insert(bytes.end(), from, from + 4);
}

Bytes ethernet(const Mac& to, const Mac& from, std::uint16_t type) {
    Bytes frame;
    append(frame, to);
    append(frame, from);
    put16(frame, type);
    return frame;
}

std::string named(std::string_view name) {
    return std::string(mark) + std::string(name) + '\n';
}

// IPv4 and UDP, the latter without a checksum (RFC 768).
void append_udp(Bytes& frame, const in_addr& from, const in_addr& to, std::string_view name) {
    const auto text = named(name);
    const auto start = frame.size();
    put16(frame, 0x4500);
    put16(frame, static_cast<unsigned>(28 + text.size()));
    put16(frame, 0);
    put16(frame, 0);
    put16(frame, 64 << 8 | 17);
    put16(frame, 0);
    append_ipv4(frame, from);
    append_ipv4(frame, to);
    unsigned sum = 0;
    for (auto i = start; i < start + 20; i += 2)
        sum += frame[i] << 8 | frame[i + 1];
    sum = (sum & 0xffff) + (sum >> 16);
    sum = ~((sum & 0xffff) + (sum >> 16));
    frame[start + 10] = static_cast<std::uint8_t>(sum >> 8);
    frame[start + 11] = static_cast<std::uint8_t>(sum);
    put16(frame, 4000);
    put16(frame, 4001);
    put16(frame, static_cast<unsigned>(8 + text.size()));
    put16(frame, 0);
    append(frame, text);
}

// RFC 826, with the name behind it as padding.
Bytes arp_reply(const Mac& source, const Mac& sender_mac, const in_addr& sender,
                const in_addr& target, std::string_view name) {
    auto frame = ethernet(everyone, source, ETH_P_ARP);
    put16(frame, 1);
    put16(frame, ETH_P_IP);
    put16(frame, 0x0604);
    put16(frame, 2);
    append(frame, sender_mac);
    append_ipv4(frame, sender);
    append(frame, everyone);
    append_ipv4(frame, target);
    append(frame, named(name));
    return frame;
}

int open_socket(const char* interface) {
    const int raw = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
    sockaddr_ll at{};
    at.sll_family = AF_PACKET;
    at.sll_protocol = htons(ETH_P_ALL);
    at.sll_ifindex = static_cast<int>(if_nametoindex(interface));
    if (raw < 0 || at.sll_ifindex == 0 ||
        bind(raw, reinterpret_cast<sockaddr*>(&at), sizeof at) < 0) {
        std::perror(interface);
        return -1;
    }
    return raw;
}

int send_all(int raw, const Mac& own, const in_addr& mine, const in_addr& others) {
    in_addr strange{};
    inet_pton(AF_INET, "198.51.100.99", &strange);
    std::vector<Bytes> frames;
    const auto udp = [&](const Mac& from, const in_addr& source, std::string_view name) {
        frames.push_back(ethernet(everyone, from, ETH_P_IP));
        append_udp(frames.back(), source, others, name);
    };
    udp(own, mine, "honest-first");
    udp(own, strange, "source-address");
    udp(own, others, "host-address");
    udp(stranger, mine, "source-mac");
    frames.push_back(ethernet(everyone, own, ETH_P_8021Q));
    put16(frames.back(), 5);
    put16(frames.back(), ETH_P_IP);
    append_udp(frames.back(), mine, others, "vlan-tag");
    frames.push_back(ethernet(everyone, own, private_experiment));
    append(frames.back(), named("ethertype"));
    frames.push_back(arp_reply(own, own, others, mine, "arp-host-address"));
    frames.push_back(arp_reply(own, stranger, mine, others, "arp-mac"));
    frames.push_back(arp_reply(stranger, stranger, mine, others, "arp-source-mac"));
    frames.push_back(arp_reply(own, own, mine, others, "honest-arp"));
    udp(own, mine, "honest-last");
    for (auto& frame : frames) {
        frame.resize(frame.size() < 60 ? 60 : frame.size());
        if (send(raw, frame.data(), frame.size(), 0) < 0) {
            std::perror("send");
            return 1;
        }
    }
    return 0;
}

int watch(int raw) {
    std::puts("watching");
    std::fflush(stdout);
    for (;;) {
        char frame[2048];
        const auto size = recv(raw, frame, sizeof frame, 0);
        if (size < 0)
            return 1;
        const std::string_view text(frame, static_cast<std::size_t>(size));
        const auto begin = text.find(mark);
        if (begin == std::string_view::npos)
            continue;
        const auto name = text.substr(begin + mark.size());
        std::printf("saw %s\n", std::string(name.substr(0, name.find('\n'))).c_str());
        std::fflush(stdout);
    }
}

}  // namespace

int main(int argc, char** argv) {
    const std::string_view what = argc > 1 ? argv[1] : "";
    if (what == "watch" && argc == 3) {
        const int raw = open_socket(argv[2]);
        return raw < 0 ? 1 : watch(raw);
    }
    Mac own{};
    in_addr mine{};
    in_addr others{};
    if (what == "send" && argc == 6 &&
        std::sscanf(argv[3], "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &own[0], &own[1], &own[2], &own[3],
                    &own[4], &own[5]) == 6 &&
        inet_pton(AF_INET, argv[4], &mine) == 1 && inet_pton(AF_INET, argv[5], &others) == 1) {
        const int raw = open_socket(argv[2]);
        return raw < 0 ? 1 : send_all(raw, own, mine, others);
    }
    std::fputs("usage: forge-frames watch IF | forge-frames send IF MAC IPV4 IPV4\n", stderr);
    return 2;
}
