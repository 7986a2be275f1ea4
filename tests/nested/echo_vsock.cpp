// echo-vsock: the far end of vsock tests, in the guest and on the host, where it speaks to the Unix
// sockets of a vsock. Numbers of bytes come from a seed on both sides, so that each knows what the
// other must say.
//
//   serve PORT            in the guest: each connection's bytes go back; it says so when one ends
//   guest PORT SEED N     in the guest: exchanges N MiB with the host's port
//   listen PATH           on the host: for one `guest`, at uds_path_PORT; also sends bytes back
//   host PATH PORT SEED N on the host: exchanges N MiB with a port of the guest
//   hold PORT             in the guest: connects to the host's port, says HELD, waits for the end
#include <linux/vm_sockets.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr std::size_t mebibyte = 1 << 20;

template <class Address>
const sockaddr* generic(const Address& address) {
    return reinterpret_cast<const sockaddr*>(&address);
}

[[noreturn]] void give_up(const char* what) {
    std::printf("FAILED %s: %s\n", what, std::strerror(errno));
    std::fflush(stdout);
    std::exit(1);
}

int vsock_socket(std::uint32_t cid, std::uint32_t port, bool listens) {
    const int fd = ::socket(AF_VSOCK, SOCK_STREAM, 0);
    sockaddr_vm address{};
    address.svm_family = AF_VSOCK;
    address.svm_cid = cid;
    address.svm_port = port;
    if (fd < 0)
        give_up("socket");
    if (!listens && ::connect(fd, generic(address), sizeof address) < 0)
        give_up("connect");
    if (listens && (::bind(fd, generic(address), sizeof address) < 0 || ::listen(fd, 8) < 0))
        give_up("listen");
    return fd;
}

int unix_socket(const std::string& path, bool listens) {
    const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    if (fd < 0)
        give_up("socket");
    if (!listens && ::connect(fd, generic(address), sizeof address) < 0)
        give_up("connect");
    if (listens && (::bind(fd, generic(address), sizeof address) < 0 || ::listen(fd, 8) < 0))
        give_up("listen");
    return fd;
}

// The stream of one seed, byte by byte.
class Pattern {
  public:
    explicit Pattern(std::uint32_t seed) : state_(seed * 2654435761U + 1) {}
    std::uint8_t next() {
        state_ = state_ * 1664525U + 1013904223U;
        return static_cast<std::uint8_t>(state_ >> 24);
    }

  private:
    std::uint32_t state_;
};

// Everything that comes goes back; the end too, once all of it has.
std::uint64_t send_back(int fd) {
    std::vector<char> buffer(64 * 1024);
    std::uint64_t total = 0;
    while (true) {
        const auto got = ::read(fd, buffer.data(), buffer.size());
        if (got < 0)
            give_up("read");
        if (got == 0)
            break;
        for (ssize_t at = 0; at < got;) {
            const auto sent = ::write(fd, buffer.data() + at, static_cast<std::size_t>(got - at));
            if (sent < 0)
                give_up("write");
            at += sent;
        }
        total += static_cast<std::uint64_t>(got);
    }
    // Still open the other way: the last word is ours.
    const std::string_view last = "END";
    if (::write(fd, last.data(), last.size()) != static_cast<ssize_t>(last.size()))
        give_up("last word");
    ::close(fd);
    return total;
}

// Sends and receives at once, then closes its half and waits for the other's last word.
int exchange(int fd, std::uint32_t seed, std::size_t size) {
    Pattern sending(seed);
    Pattern expected(seed);
    std::vector<std::uint8_t> outgoing;
    std::vector<std::uint8_t> incoming(100'000);
    std::string rest;
    std::size_t sent = 0;
    std::size_t received = 0;
    while (true) {
        const bool more = sent < size;
        pollfd entry{
            .fd = fd, .events = static_cast<short>(POLLIN | (more ? POLLOUT : 0)), .revents = 0};
        if (::poll(&entry, 1, 60'000) <= 0)
            give_up("waiting");
        if (more && (entry.revents & POLLOUT) != 0) {
            while (outgoing.size() < std::min<std::size_t>(70'000, size - sent))
                outgoing.push_back(sending.next());
            const auto done = ::send(fd, outgoing.data(), outgoing.size(), MSG_DONTWAIT);
            if (done < 0 && errno != EAGAIN)
                give_up("send");
            if (done > 0) {
                outgoing.erase(outgoing.begin(), outgoing.begin() + done);
                sent += static_cast<std::size_t>(done);
            }
            if (sent == size)
                ::shutdown(fd, SHUT_WR);
        }
        if ((entry.revents & (POLLIN | POLLHUP | POLLERR)) == 0)
            continue;
        const auto got = ::recv(fd, incoming.data(), incoming.size(), MSG_DONTWAIT);
        if (got < 0 && errno != EAGAIN)
            give_up("receive");
        if (got == 0)
            break;
        for (ssize_t i = 0; i < got; ++i) {
            const auto byte = incoming[static_cast<std::size_t>(i)];
            if (received < size && byte != expected.next()) {
                std::printf("FAILED byte %zu is wrong\n", received);
                return 1;
            }
            if (received >= size)
                rest += static_cast<char>(byte);
            ++received;
        }
    }
    const bool good = sent == size && received == size + 3 && rest == "END";
    std::printf("%s sent=%zu received=%zu last=%s\n", good ? "EXCHANGED" : "FAILED", sent, received,
                rest.c_str());
    return good ? 0 : 1;
}

int serve(std::uint32_t port) {
    const int listener = vsock_socket(VMADDR_CID_ANY, port, true);
    std::printf("SERVING\n");
    std::fflush(stdout);
    while (true) {
        const int client = ::accept(listener, nullptr, nullptr);
        if (client < 0)
            give_up("accept");
        std::printf("SERVED=%llu\n", static_cast<unsigned long long>(send_back(client)));
        std::fflush(stdout);
    }
}

int hold(std::uint32_t port) {
    const int fd = vsock_socket(VMADDR_CID_HOST, port, false);
    std::printf("HELD\n");
    std::fflush(stdout);
    char byte = 0;
    const auto got = ::read(fd, &byte, 1);
    std::printf("RELEASED=%s\n", got < 0 ? std::strerror(errno) : "end");
    return 0;
}

int ask_guest(const std::string& path, const std::string& port, std::uint32_t seed,
              std::size_t size) {
    const int fd = unix_socket(path, false);
    const auto line = "CONNECT " + port + "\n";
    if (::write(fd, line.data(), line.size()) != static_cast<ssize_t>(line.size()))
        give_up("asking");
    std::string answer;
    char byte = 0;
    while (!answer.ends_with('\n') && ::read(fd, &byte, 1) == 1)
        answer += byte;
    if (!answer.starts_with("OK ")) {
        std::printf("REFUSED\n");
        return 1;
    }
    return exchange(fd, seed, size);
}

int listen_once(const std::string& path) {
    const int listener = unix_socket(path, true);
    std::printf("LISTENING\n");
    std::fflush(stdout);
    const int client = ::accept(listener, nullptr, nullptr);
    if (client < 0)
        give_up("accept");
    std::printf("SERVED=%llu\n", static_cast<unsigned long long>(send_back(client)));
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    const std::vector<std::string> words(argv + 1, argv + argc);
    const auto number = [&](std::size_t i) {
        return static_cast<std::uint32_t>(std::strtoul(words.at(i).c_str(), nullptr, 10));
    };
    const auto count = words.size();
    if (count == 2 && words[0] == "serve")
        return serve(number(1));
    if (count == 2 && words[0] == "hold")
        return hold(number(1));
    if (count == 2 && words[0] == "listen")
        return listen_once(words[1]);
    if (count == 4 && words[0] == "guest")
        return exchange(vsock_socket(VMADDR_CID_HOST, number(1), false), number(2),
                        number(3) * mebibyte);
    if (count == 5 && words[0] == "host")
        return ask_guest(words[1], words[2], number(3), number(4) * mebibyte);
    std::fprintf(stderr, "usage: see the head of echo_vsock.cpp\n");
    return 2;
}
