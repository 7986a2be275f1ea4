// Errors as values: every fallible set-up step returns Result<T>; the message is written for a
// person.
#pragma once

#include <cerrno>
#include <cstring>
#include <expected>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

namespace masu {

// What went wrong, in one sentence: the thing, the cause and, where there is one, the remedy.
// `os_errno` is the errno behind it, or 0.
struct Error {
    std::string message;
    int os_errno = 0;
};

template <class T = void>
using Result = std::expected<T, Error>;

// fail("disk {}: {}", path, why) is a value any Result converts from.
template <class... Args>
[[nodiscard]] std::unexpected<Error> fail(fmt::format_string<Args...> format, Args&&... args) {
    return std::unexpected(Error{fmt::format(format, std::forward<Args>(args)...), 0});
}

// The same with ": <strerror(error)>" appended. Pass errno captured at once by the caller.
template <class... Args>
[[nodiscard]] std::unexpected<Error> fail_errno(int error, fmt::format_string<Args...> format,
                                                Args&&... args) {
    auto text = fmt::format(format, std::forward<Args>(args)...);
    return std::unexpected(Error{text + ": " + std::strerror(error), error});
}

// Puts `prefix: ` in front of an error's message, to say what was being done.
[[nodiscard]] inline std::unexpected<Error> in_context(std::string_view prefix, Error error) {
    return std::unexpected(Error{fmt::format("{}: {}", prefix, error.message), error.os_errno});
}

}  // namespace masu

// TRY(expr): the value of a Result, or return its error from the enclosing function.
// MASU_ prefix omitted on purpose: it is the one macro of the code base and it is read often.
#define TRY(expression)                                             \
    __extension__({                                                 \
        auto try_result_ = (expression);                            \
        if (!try_result_)                                           \
            return std::unexpected(std::move(try_result_).error()); \
        *std::move(try_result_);                                    \
    })
