// Errors as values, for code without a heap, exceptions or a C library.
#pragma once

#include <cstdint>
#include <expected>
#include <utility>

namespace masu::firmware {

enum class ErrorCode : std::uint8_t {
    NotFound,      // no such file, entry or file system
    NotDirectory,  // a path goes through something that is no directory
    IsDirectory,   // a file was wanted
    Io,            // the device failed, or the address is not on it
    Corrupt,       // what the disk says contradicts itself
    Unsupported,   // sound, but not followed here
    TooLarge,      // beyond a limit of ours, or more than the caller's buffer holds
    Loop,          // more symbolic links than we follow
    NoMemory,      // the arena is used up
    Invalid,       // the caller's argument
};

// `reason` is a phrase for a person, without a full stop; it lives for ever (a literal).
// `value` is what the reason speaks of (a block, an inode, a feature bit), 0 if nothing.
struct Error {
    ErrorCode code;
    const char* reason;
    std::uint64_t value = 0;
};

template <class T = void>
using Result = std::expected<T, Error>;

[[nodiscard]] constexpr std::unexpected<Error> fail(ErrorCode code, const char* reason,
                                                    std::uint64_t value = 0) noexcept {
    return std::unexpected(Error{code, reason, value});
}

}  // namespace masu::firmware

// TRY(expr): the value of a Result, or return its error from the enclosing function.
#ifndef TRY
#define TRY(expression)                                             \
    __extension__({                                                 \
        auto try_result_ = (expression);                            \
        if (!try_result_)                                           \
            return std::unexpected(std::move(try_result_).error()); \
        *std::move(try_result_);                                    \
    })
#endif
