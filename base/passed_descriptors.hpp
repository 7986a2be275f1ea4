// Messages over Unix sockets that carry file descriptors (unix(7), SCM_RIGHTS).
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <span>
#include <vector>

#include "base/fd.hpp"

namespace masu {

inline constexpr std::size_t max_passed_descriptors = 32;  // in one message

// sendmsg() without SIGPIPE; `flags` are its others. What it returns, errno in place; more
// descriptors than one message carries are E2BIG. Any thread.
[[nodiscard]] ssize_t send_with_descriptors(int socket, std::span<const std::byte> bytes,
                                            std::span<const Fd> passed, int flags = 0);

struct ReceivedMessage {
    ssize_t size = 0;  // recvmsg()'s; errno in place when it is negative
    int flags = 0;     // MSG_TRUNC, MSG_CTRUNC
    std::vector<Fd> passed;
};
// recvmsg() into `to`, again when a signal interrupts it. Every descriptor that came has an owner
// then, and is close-on-exec; the kernel closes those beyond max_passed_descriptors.
[[nodiscard]] ReceivedMessage receive_with_descriptors(int socket, std::span<std::byte> to,
                                                       int flags = 0);

}  // namespace masu
