// Whole reads and writes of files at an offset, and which bytes a sparse file can leave out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.hpp"

namespace masu {

// The number of bytes read: all of `to`, or those up to the end of the file. The file's own place
// does not move. Errors have an os_errno, for a caller that can name the file. Any thread.
[[nodiscard]] Result<std::size_t> read_at(int fd, std::span<std::byte> to, std::uint64_t offset);

// Writes all of it. As above.
[[nodiscard]] Result<> write_at(int fd, std::span<const std::byte> bytes, std::uint64_t offset);

[[nodiscard]] bool is_zero(std::span<const std::byte> bytes) noexcept;

}  // namespace masu
