// Whole-file reads and atomic replacement.
#include "base/atomic_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "base/fd.hpp"

namespace masu {
namespace {

Result<> write_all(int fd, std::string_view content, const std::string& path) {
    while (!content.empty()) {
        const auto written = ::write(fd, content.data(), content.size());
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return fail_errno(errno, "cannot write {}", path);
        content.remove_prefix(static_cast<std::size_t>(written));
    }
    return {};
}

Result<> replace(int fd, const std::string& temporary, const std::string& path,
                 std::string_view content) {
    TRY(write_all(fd, content, temporary));
    if (::fsync(fd) < 0)
        return fail_errno(errno, "cannot sync {}", temporary);
    if (::rename(temporary.c_str(), path.c_str()) < 0)
        return fail_errno(errno, "cannot rename {} to {}", temporary, path);
    return {};
}

}  // namespace

std::string folder_of(const std::string& path) {
    const auto slash = path.rfind('/');
    return slash == std::string::npos ? "." : path.substr(0, slash + 1);
}

Result<> sync_folder(const std::string& path) {
    const Fd folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!folder || ::fsync(folder.get()) < 0)
        return fail_errno(errno, "cannot sync folder {}", path);
    return {};
}

Result<> write_file_atomically(const std::string& path, std::string_view content) {
    std::string temporary = path + ".XXXXXX";
    const Fd fd(::mkostemp(temporary.data(), O_CLOEXEC));
    if (!fd)
        return fail_errno(errno, "cannot create {}", temporary);
    if (auto done = replace(fd.get(), temporary, path, content); !done) {
        ::unlink(temporary.c_str());
        return done;
    }
    return sync_folder(folder_of(path));
}

Result<std::string> read_file(const std::string& path, std::size_t limit) {
    const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd)
        return fail_errno(errno, "cannot open {}", path);
    // What is no plain file (or one of /proc) has no size to tell.
    constexpr std::size_t chunk_without_size = 16 * 1024;
    struct stat status{};
    if (::fstat(fd.get(), &status) < 0)
        return fail_errno(errno, "cannot look at {}", path);
    const auto expected =
        status.st_size > 0 ? static_cast<std::size_t>(status.st_size) : chunk_without_size;
    const auto chunk = std::min(expected, limit) + 1;
    std::string content;
    std::size_t size = 0;
    for (;;) {
        content.resize(size + chunk);
        const auto count = ::read(fd.get(), content.data() + size, chunk);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return fail_errno(errno, "cannot read {}", path);
        size += static_cast<std::size_t>(count);
        if (size > limit)
            return fail("{} is larger than {} bytes, the most that is read here", path, limit);
        if (count == 0) {
            content.resize(size);
            return content;
        }
    }
}

}  // namespace masu
