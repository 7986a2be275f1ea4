// What both sides of the launch benchmark do alike.
#pragma once

#include <sys/types.h>

#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace masu::bench {

template <class T>
T require(Result<T> result) {
    if (!result) {
        std::fprintf(stderr, "launch: %s\n", result.error().message.c_str());
        std::exit(1);
    }
    if constexpr (!std::is_void_v<T>)
        return std::move(*result);
}

// Connected stream sockets, close-on-exec.
[[nodiscard]] std::pair<Fd, Fd> socket_pair();

// Runs a program with descriptors 3, 4, ...
[[nodiscard]] pid_t spawn(std::span<const std::string> command, std::span<const int> descriptors);

// Waits for bytes of a socket; ends the benchmark when there are none to come.
void read_whole(const Fd& socket, void* to, std::size_t size);

}  // namespace masu::bench
