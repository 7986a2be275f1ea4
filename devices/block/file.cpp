// Opening, checking and locking disk files.
#include "devices/block/file.hpp"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>

#include "base/bytes.hpp"
#include "devices/block/disk.hpp"

namespace masu::block {
namespace {

Result<struct stat> check_kind(const std::string& path) {
    struct stat status{};
    if (::stat(path.c_str(), &status) < 0) {
        if (errno == ENOENT)
            return fail("disk {} does not exist; check the path, or create it first", path);
        return fail_errno(errno, "cannot look at disk {}", path);
    }
    if (S_ISDIR(status.st_mode))
        return fail("disk {} is a directory; give a raw image file or a block device", path);
    if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode))
        return fail("disk {} is neither a file nor a block device; give a raw image or a device",
                    path);
    return status;
}

Result<std::uint64_t> host_size(int fd, bool block_device, const std::string& path) {
    if (block_device) {
        std::uint64_t bytes = 0;
        if (::ioctl(fd, BLKGETSIZE64, &bytes) < 0)
            return fail_errno(errno, "cannot ask block device {} for its size", path);
        return bytes;
    }
    struct stat status{};
    if (::fstat(fd, &status) < 0)
        return fail_errno(errno, "cannot ask disk {} for its size", path);
    return static_cast<std::uint64_t>(status.st_size);
}

Result<Fd> open_node(const std::string& path, int flags) {
    Fd fd(::open(path.c_str(), flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    if (!fd) {
        const int error = errno;
        if (error == EBUSY)
            return fail(
                "disk {} is in use on this host (mounted, or held by another VM); unmount "
                "it or stop that VM",
                path);
        if (error == EROFS || error == EACCES || error == EPERM)
            return fail_errno(error, "cannot open disk {} for {}; check its permissions{}", path,
                              (flags & O_ACCMODE) == O_RDONLY ? "reading" : "writing",
                              (flags & O_ACCMODE) == O_RDONLY ? "" : " or attach it read-only");
        return fail_errno(error, "cannot open disk {}", path);
    }
    // O_NONBLOCK was for a FIFO put in the disk's place; io_uring would answer EAGAIN with it.
    const int current = ::fcntl(fd.get(), F_GETFL);
    if (current < 0 || ::fcntl(fd.get(), F_SETFL, current & ~O_NONBLOCK) < 0)
        return fail_errno(errno, "cannot set up disk {}", path);
    return fd;
}

}  // namespace

Result<File> File::open(const Options& options, std::vector<std::string>& warnings) {
    const auto expected = TRY(check_kind(options.path));
    File file;
    file.path_ = options.path;
    file.read_only_ = options.read_only;
    file.block_device_ = S_ISBLK(expected.st_mode);
    int flags = options.read_only ? O_RDONLY : O_RDWR;
    if (file.block_device_ && !options.read_only)
        flags |= O_EXCL;  // refuses a device that is mounted on the host
    file.fd_ = TRY(open_node(options.path, flags));
    struct stat status{};
    if (::fstat(file.fd_.get(), &status) < 0)
        return fail_errno(errno, "cannot look at disk {}", options.path);
    if (status.st_dev != expected.st_dev || status.st_ino != expected.st_ino)
        return fail("disk {} was replaced while it was being opened; try again", options.path);
    file.fds_[0] = file.fd_.get();
    TRY(file.lock(warnings));

    const std::uint64_t bytes = TRY(host_size(file.fd_.get(), file.block_device_, options.path));
    file.size_ = align_down(bytes, sector_size);
    if (file.size_ == 0)
        return fail("disk {} is empty ({} bytes); it needs at least one sector of 512 bytes",
                    options.path, bytes);
    if (file.size_ != bytes)
        warnings.push_back(
            fmt::format("disk {}: its size of {} bytes is no multiple of 512; the last {} bytes "
                        "are not visible to the guest",
                        options.path, bytes, bytes - file.size_));
    if (options.direct)
        TRY(file.go_direct(warnings));
    return file;
}

// Closing is not enough: an io_uring that is being torn down in the background still holds the open
// file, and its lock, for a while.
File::~File() {
    if (!fd_)
        return;
    struct flock whole{};
    whole.l_type = F_UNLCK;
    whole.l_whence = SEEK_SET;
    ::fcntl(fd_.get(), F_OFD_SETLK, &whole);
}

Result<> File::lock(std::vector<std::string>& warnings) const {
    struct flock whole{};
    whole.l_type = read_only_ ? F_RDLCK : F_WRLCK;
    whole.l_whence = SEEK_SET;
    if (::fcntl(fd_.get(), F_OFD_SETLK, &whole) == 0)
        return {};
    const int error = errno;
    if (error != EAGAIN && error != EACCES) {
        warnings.push_back(
            fmt::format("disk {}: its file system cannot lock ({}); nothing "
                        "stops a second VM from writing to it",
                        path_, std::strerror(error)));
        return {};
    }
    if (read_only_)
        return fail("disk {} is in use by another VM that writes to it; stop that VM first", path_);
    return fail(
        "disk {} is in use by another VM, and two writers lose data; stop that VM, or give "
        "each VM its own overlay on the disk",
        path_);
}

Result<> File::go_direct(std::vector<std::string>& warnings) {
    const int current = ::fcntl(fd_.get(), F_GETFL);
    auto buffered = TRY(open_node(path_, read_only_ ? O_RDONLY : O_RDWR));
    struct stat ours{};
    struct stat second{};
    if (::fstat(fd_.get(), &ours) < 0 || ::fstat(buffered.get(), &second) < 0 ||
        ours.st_dev != second.st_dev || ours.st_ino != second.st_ino)
        return fail("disk {} was replaced while it was being opened; try again", path_);
    if (current < 0 || ::fcntl(fd_.get(), F_SETFL, current | O_DIRECT) < 0) {
        warnings.push_back(
            fmt::format("disk {}: its file system has no direct I/O ({}); the page cache is used",
                        path_, std::strerror(errno)));
        return {};
    }
    int sector = 0;
    if (block_device_ && ::ioctl(fd_.get(), BLKSSZGET, &sector) == 0 && sector > 0) {
        alignment_ = static_cast<std::uint64_t>(sector);
    } else {
        struct statx details{};
        if (::statx(fd_.get(), "", AT_EMPTY_PATH, STATX_DIOALIGN, &details) == 0 &&
            (details.stx_mask & STATX_DIOALIGN) != 0 && details.stx_dio_offset_align != 0)
            alignment_ = std::max(details.stx_dio_offset_align, details.stx_dio_mem_align);
        else
            alignment_ = 4096;
    }
    buffered_ = std::move(buffered);
    fds_[1] = buffered_.get();
    direct_ = true;
    return {};
}

unsigned File::pick(std::uint64_t offset, std::span<const iovec> buffers) const noexcept {
    if (!direct_)
        return 0;
    std::uint64_t bits = offset;
    for (const auto& buffer : buffers)
        bits |= reinterpret_cast<std::uintptr_t>(buffer.iov_base) | buffer.iov_len;
    return bits % alignment_ == 0 ? 0 : 1;
}

Result<FileIdentity> File::identity() const {
    struct stat status{};
    if (::fstat(fd_.get(), &status) < 0)
        return fail_errno(errno, "cannot look at disk {}", path_);
    FileIdentity identity;
    identity.size = TRY(host_size(fd_.get(), block_device_, path_));
    if (!block_device_)
        identity.mtime_ns = static_cast<std::uint64_t>(status.st_mtim.tv_sec) * 1'000'000'000U +
                            static_cast<std::uint64_t>(status.st_mtim.tv_nsec);
    return identity;
}

Result<std::uint64_t> File::refresh_size() {
    const auto bytes = align_down(TRY(host_size(fd_.get(), block_device_, path_)), sector_size);
    if (bytes == 0)
        return fail("disk {} has become empty; it needs at least one sector of 512 bytes", path_);
    size_ = bytes;
    return size_;
}

}  // namespace masu::block
