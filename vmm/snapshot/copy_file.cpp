#include "vmm/snapshot/copy_file.hpp"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "base/bytes.hpp"
#include "base/fd.hpp"
#include "base/file_bytes.hpp"

namespace masu::snapshot {

namespace {

Result<> copy_by_hand(int from, int to, off_t start, off_t end, const std::string& path) {
    std::vector<std::byte> buffer(
        std::min<std::size_t>(MiB, static_cast<std::size_t>(end - start)));
    for (auto place = static_cast<std::uint64_t>(start),
              rest = static_cast<std::uint64_t>(end - start);
         rest > 0;) {
        const auto wanted = std::span(buffer).first(std::min<std::size_t>(buffer.size(), rest));
        const auto count = read_at(from, wanted, place);
        if (!count)
            return fail_errno(count.error().os_errno, "cannot read what {} is copied from", path);
        if (*count == 0)
            return fail("cannot write {}: the file it is copied from became shorter", path);
        if (const auto written = write_at(to, wanted.first(*count), place); !written)
            return fail_errno(written.error().os_errno, "cannot write {}", path);
        place += *count;
        rest -= *count;
    }
    return {};
}

// Copies [start, end) at once or in parts; the kernel may take less than it is asked for, and takes
// nothing between file systems of two kinds.
Result<> copy_range(int from, int to, off_t start, off_t end, const std::string& path) {
    off_t in = start;
    off_t out = start;
    while (in < end) {
        const auto size = static_cast<std::size_t>(end - in);
        auto count = ::copy_file_range(from, &in, to, &out, size, 0);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0 && (errno == EXDEV || errno == EOPNOTSUPP))
            return copy_by_hand(from, to, in, end, path);
        if (count < 0)
            return fail_errno(errno, "cannot write {}", path);
        if (count == 0)
            return fail("cannot write {}: the file it is copied from became shorter", path);
    }
    return {};
}

Result<std::uint64_t> copy_data(int from, int to, off_t size, const std::string& path) {
    std::uint64_t copied = 0;
    if (::ftruncate(to, size) < 0)
        return fail_errno(errno, "cannot write {}", path);
    for (off_t place = 0; place < size;) {
        const off_t data = ::lseek(from, place, SEEK_DATA);
        if (data < 0 && errno == ENXIO)
            break;
        const off_t start = data < 0 ? place : data;
        off_t end = data < 0 ? size : ::lseek(from, start, SEEK_HOLE);
        end = end < 0 ? size : std::min(end, size);
        TRY(copy_range(from, to, start, end, path));
        copied += static_cast<std::uint64_t>(end - start);
        place = end;
    }
    return copied;
}

}  // namespace

Result<std::uint64_t> copy_content(int from, int to, const std::string& to_path) {
    struct stat status{};
    if (::fstat(from, &status) < 0)
        return fail_errno(errno, "cannot look at what {} is copied from", to_path);
    if (::ioctl(to, FICLONE, from) == 0)
        return std::uint64_t{0};
    return copy_data(from, to, status.st_size, to_path);
}

Result<std::uint64_t> copy_file(const std::string& from, const std::string& to, Sync sync) {
    const Fd source(::open(from.c_str(), O_RDONLY | O_CLOEXEC));
    if (!source)
        return fail_errno(errno, "cannot open {}", from);
    struct stat status{};
    if (::fstat(source.get(), &status) < 0 || !S_ISREG(status.st_mode))
        return fail("{} is no regular file, and only those can be copied", from);
    const Fd target(::open(to.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!target)
        return fail_errno(errno, "cannot create {}", to);
    auto copied = copy_content(source.get(), target.get(), to);
    if (!copied) {
        ::unlink(to.c_str());
        return copied;
    }
    if (sync == Sync::Now && ::fsync(target.get()) < 0) {
        const int error = errno;
        ::unlink(to.c_str());
        return fail_errno(error, "cannot sync {}", to);
    }
    return copied;
}

}  // namespace masu::snapshot
