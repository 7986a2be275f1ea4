// pread and pwrite, which may do less than they were asked for.
#include "base/file_bytes.hpp"

#include <unistd.h>

#include <cstring>

namespace masu {

Result<std::size_t> read_at(int fd, std::span<std::byte> to, std::uint64_t offset) {
    std::size_t got = 0;
    while (got < to.size()) {
        const auto count =
            ::pread(fd, to.data() + got, to.size() - got, static_cast<off_t>(offset + got));
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return fail_errno(errno, "cannot read at {}", offset + got);
        if (count == 0)
            break;
        got += static_cast<std::size_t>(count);
    }
    return got;
}

Result<> write_at(int fd, std::span<const std::byte> bytes, std::uint64_t offset) {
    while (!bytes.empty()) {
        const auto count = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return fail_errno(count < 0 ? errno : EIO, "cannot write at {}", offset);
        bytes = bytes.subspan(static_cast<std::size_t>(count));
        offset += static_cast<std::uint64_t>(count);
    }
    return {};
}

bool is_zero(std::span<const std::byte> bytes) noexcept {
    // Comparing the bytes with themselves, shifted: memcmp is as fast as this machine can be.
    return bytes.empty() || (bytes[0] == std::byte{0} &&
                             std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

}  // namespace masu
