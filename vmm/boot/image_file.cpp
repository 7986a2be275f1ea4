#include "vmm/boot/image_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

namespace masu::boot {

Result<ImageFile> ImageFile::open(const char* what, const std::string& path) {
    // O_NONBLOCK: opening a FIFO must not wait for a writer.
    Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!fd)
        return fail_errno(errno, "cannot open {} {}", what, path);
    return adopt(what, path, std::move(fd));
}

Result<ImageFile> ImageFile::adopt(const char* what, std::string path, Fd fd) {
    struct stat status{};
    if (::fstat(fd.get(), &status) < 0)
        return fail_errno(errno, "cannot look at {} {}", what, path);
    if (S_ISDIR(status.st_mode))
        return fail("{} {} is a directory: name the file in it", what, path);
    if (!S_ISREG(status.st_mode))
        return fail("{} {} is not a regular file", what, path);
    if (status.st_size == 0)
        return fail("{} {} is empty: fetch or build it again", what, path);
    return ImageFile(std::move(fd), fmt::format("{} {}", what, path),
                     static_cast<std::uint64_t>(status.st_size));
}

Result<> ImageFile::read(std::uint64_t offset, std::span<std::byte> to) const {
    if (offset > size_ || to.size() > size_ - offset)
        return fail(
            "{} is truncated: it refers to byte {} and has only {}; fetch or build it again", name_,
            offset + to.size(), size_);
    while (!to.empty()) {
        const auto count = ::pread(fd_.get(), to.data(), to.size(), static_cast<off_t>(offset));
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return fail_errno(errno, "cannot read {}", name_);
        if (count == 0)
            return fail("{} shrank while it was read", name_);
        to = to.subspan(static_cast<std::size_t>(count));
        offset += static_cast<std::uint64_t>(count);
    }
    return {};
}

Result<std::span<std::byte>> ImageFile::read_head(std::span<std::byte> to) const {
    const auto head = to.first(static_cast<std::size_t>(std::min<std::uint64_t>(to.size(), size_)));
    TRY(read(0, head));
    return head;
}

}  // namespace masu::boot
