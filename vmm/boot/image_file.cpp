#include "vmm/boot/image_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "base/file_bytes.hpp"

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
    const auto got = read_at(fd_.get(), to, offset);
    if (!got)
        return fail_errno(got.error().os_errno, "cannot read {}", name_);
    if (*got < to.size())
        return fail("{} shrank while it was read", name_);
    return {};
}

Result<std::span<std::byte>> ImageFile::read_head(std::span<std::byte> to) const {
    const auto head = to.first(static_cast<std::size_t>(std::min<std::uint64_t>(to.size(), size_)));
    TRY(read(0, head));
    return head;
}

}  // namespace masu::boot
