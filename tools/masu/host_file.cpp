// Checks files before the monitor sees them.
#include "tools/masu/host_file.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

namespace masu::cli {

std::string absolute_path(const std::string& path) {
    std::error_code ignored;
    const auto absolute = std::filesystem::absolute(path, ignored);
    return ignored ? path : absolute.lexically_normal().string();
}

Result<> check_host_file(std::string_view what, const std::string& path, FileKind kind) {
    struct stat status{};
    if (::stat(path.c_str(), &status) < 0) {
        if (errno == ENOENT)
            return fail("{} {}: there is no such file; check the path", what, path);
        return fail_errno(errno, "{} {}: cannot be looked at", what, path);
    }
    if (S_ISDIR(status.st_mode))
        return fail("{} {}: is a directory; name a file in it", what, path);
    const bool device = S_ISBLK(status.st_mode) && kind == FileKind::FileOrBlockDevice;
    if (!S_ISREG(status.st_mode) && !device)
        return fail("{} {}: is not a regular file{}", what, path,
                    kind == FileKind::File ? "" : " or block device");
    if (S_ISREG(status.st_mode) && status.st_size == 0)
        return fail("{} {}: is empty; was its download or build cut short?", what, path);
    if (::access(path.c_str(), R_OK) < 0)
        return fail("{} {}: this user may not read it; change its permissions or run as its owner",
                    what, path);
    return {};
}

}  // namespace masu::cli
