// The control messages of unix(7).
#include "base/passed_descriptors.hpp"

#include <sys/socket.h>

#include <array>
#include <cstring>

namespace masu {
namespace {

using Control = std::array<char, CMSG_SPACE(sizeof(int) * max_passed_descriptors)>;

}  // namespace

ssize_t send_with_descriptors(int socket, std::span<const std::byte> bytes,
                              std::span<const Fd> passed, int flags) {
    if (passed.size() > max_passed_descriptors) {
        errno = E2BIG;
        return -1;
    }
    iovec piece{.iov_base = const_cast<std::byte*>(bytes.data()), .iov_len = bytes.size()};
    alignas(cmsghdr) Control control{};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    if (!passed.empty()) {
        message.msg_control = control.data();
        message.msg_controllen = CMSG_SPACE(sizeof(int) * passed.size());
        auto* header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int) * passed.size());
        for (std::size_t i = 0; i < passed.size(); ++i) {
            const int number = passed[i].get();
            std::memcpy(CMSG_DATA(header) + i * sizeof number, &number, sizeof number);
        }
    }
    return ::sendmsg(socket, &message, MSG_NOSIGNAL | flags);
}

ReceivedMessage receive_with_descriptors(int socket, std::span<std::byte> to, int flags) {
    iovec piece{.iov_base = to.data(), .iov_len = to.size()};
    alignas(cmsghdr) Control control{};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    ReceivedMessage received;
    do
        received.size = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC | flags);
    while (received.size < 0 && errno == EINTR);
    if (received.size < 0)
        return received;
    received.flags = message.msg_flags;
    for (auto* header = CMSG_FIRSTHDR(&message); header != nullptr;
         header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
            continue;
        const auto count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (std::size_t i = 0; i < count; ++i) {
            int number = -1;
            std::memcpy(&number, CMSG_DATA(header) + i * sizeof number, sizeof number);
            received.passed.emplace_back(number);
        }
    }
    return received;
}

}  // namespace masu
