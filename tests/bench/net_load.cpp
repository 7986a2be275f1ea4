// net-load: the traffic that iperf3 has none of, for tests/bench/network: many flows, and round
// trips.
//
//   net-load flows COUNT                         a datagram to each of COUNT addresses in
//   198.18.0.0/15 net-load echo PORT                           answers what comes on TCP
//   connections, one by one net-load round-trips ADDRESS PORT SECONDS    64 bytes there and back;
//   prints RATE=, a second
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string_view>

namespace {

constexpr std::size_t message_size = 64;
using Message = std::array<char, message_size>;

[[noreturn]] void die(const char* what) {
    std::perror(what);
    std::exit(1);
}

sockaddr_in end_of(in_addr address, int port) {
    sockaddr_in end{};
    end.sin_family = AF_INET;
    end.sin_port = htons(static_cast<std::uint16_t>(port));
    end.sin_addr = address;
    return end;
}

double seconds() {
    timespec time{};
    ::clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

void send_at_once(int fd) {
    const int on = 1;
    if (::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0)
        die("net-load: TCP_NODELAY");
}

bool receive_whole(int fd, Message& message) {
    return ::recv(fd, message.data(), message.size(), MSG_WAITALL) ==
           static_cast<ssize_t>(message.size());
}
bool send_whole(int fd, const Message& message) {
    return ::send(fd, message.data(), message.size(), MSG_NOSIGNAL) ==
           static_cast<ssize_t>(message.size());
}

// Of a protocol without ports (RFC 3692's 253): a firewall that tracks keeps one flow an address,
// and longer than one of UDP.
int flows(std::uint32_t count) {
    constexpr int experimental = 253;
    constexpr std::uint32_t benchmarking = 0xc612'0000;  // RFC 2544
    constexpr std::uint32_t addresses = 1U << 17;
    if (count > addresses) {
        std::fprintf(stderr, "net-load: %u flows, but %u is the most\n", count, addresses);
        return 2;
    }
    const int fd = ::socket(AF_INET, SOCK_RAW, experimental);
    if (fd < 0)
        die("net-load: a raw socket");
    for (std::uint32_t sent = 0; sent < count;) {
        const auto end = end_of({htonl(benchmarking + sent)}, 0);
        const auto* name = reinterpret_cast<const sockaddr*>(&end);
        if (::sendto(fd, "flow", 4, 0, name, sizeof end) == 4)
            ++sent;
        else if (errno == ENOBUFS)  // faster than the interface
            ::usleep(1000);
        else
            die("net-load: sending");
    }
    return 0;
}

int echo(int port) {
    const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
    const auto end = end_of({htonl(INADDR_ANY)}, port);
    if (listener < 0 ||
        ::bind(listener, reinterpret_cast<const sockaddr*>(&end), sizeof end) != 0 ||
        ::listen(listener, 1) != 0)
        die("net-load: listening");
    std::puts("LISTENING");
    std::fflush(stdout);
    for (;;) {
        const int fd = ::accept(listener, nullptr, nullptr);
        if (fd < 0)
            die("net-load: accepting");
        send_at_once(fd);
        Message message;
        while (receive_whole(fd, message) && send_whole(fd, message)) {
        }
        ::close(fd);
    }
}

int round_trips(const char* address, int port, double duration) {
    in_addr parsed{};
    if (::inet_pton(AF_INET, address, &parsed) != 1) {
        std::fprintf(stderr, "net-load: %s is no IPv4 address\n", address);
        return 2;
    }
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    const auto end = end_of(parsed, port);
    if (fd < 0 || ::connect(fd, reinterpret_cast<const sockaddr*>(&end), sizeof end) != 0)
        die("net-load: connecting");
    send_at_once(fd);
    Message message{};
    const auto begin = seconds();
    std::uint64_t count = 0;
    for (; seconds() - begin < duration; ++count)
        if (!send_whole(fd, message) || !receive_whole(fd, message))
            die("net-load: the connection");
    std::printf("RATE=%.1f\n", static_cast<double>(count) / (seconds() - begin));
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    const std::string_view what = argc > 1 ? argv[1] : "";
    if (what == "flows" && argc == 3)
        return flows(static_cast<std::uint32_t>(std::strtoul(argv[2], nullptr, 10)));
    if (what == "echo" && argc == 3)
        return echo(std::atoi(argv[2]));
    if (what == "round-trips" && argc == 5)
        return round_trips(argv[2], std::atoi(argv[3]), std::atof(argv[4]));
    std::fprintf(stderr,
                 "usage: net-load flows COUNT | echo PORT | round-trips ADDRESS PORT SECONDS\n");
    return 2;
}
