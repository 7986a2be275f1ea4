// flock() as a Result.
#include "tools/masu/lock_file.hpp"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>

namespace masu::cli {

Result<Fd> lock_file(const std::string& path, int operation) {
    Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!fd)
        return fail_errno(errno, "cannot open {}", path);
    while (::flock(fd.get(), operation) < 0)
        if (errno != EINTR)
            return fail_errno(errno, "cannot lock {}", path);
    return fd;
}

}  // namespace masu::cli
