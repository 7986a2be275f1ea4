// Serial output to a file.
#include "vmm/console_log.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace masu {

Result<ConsoleLog> ConsoleLog::open(const std::string& path, Log log, std::uint64_t limit) {
    ConsoleLog console_log(path, std::move(log), limit);
    TRY(console_log.reopen());
    return console_log;
}

Result<> ConsoleLog::reopen() {
    // Non-blocking matters for a FIFO. Without a reader one opens for reading as well: output must
    // not depend on who listens.
    constexpr int flags = O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    Fd file(::open(path_.c_str(), O_WRONLY | flags, 0600));
    if (!file && errno == ENXIO)
        file.reset(::open(path_.c_str(), O_RDWR | flags, 0600));
    if (!file)
        return fail_errno(errno, "cannot open the console log {}", path_);
    struct stat status{};
    if (::fstat(file.get(), &status) < 0)
        return fail_errno(errno, "cannot look at the console log {}", path_);
    regular_ = S_ISREG(status.st_mode);
    size_ = regular_ ? static_cast<std::uint64_t>(status.st_size) : 0;
    file_ = std::move(file);
    return {};
}

void ConsoleLog::write(std::span<const std::byte> bytes) {
    if (regular_ && size_ >= limit_) {
        if (std::rename(path_.c_str(), (path_ + ".1").c_str()) < 0) {
            complain(errno);
            return;  // a log that cannot rotate stops growing
        }
        if (auto opened = reopen(); !opened) {
            complain(opened.error().os_errno);
            return;
        }
    }
    while (!bytes.empty()) {
        const auto written = ::write(file_.get(), bytes.data(), bytes.size());
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0) {
            complain(written < 0 ? errno : ENOSPC);
            return;
        }
        complained_ = false;
        size_ += static_cast<std::uint64_t>(written);
        bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
}

void ConsoleLog::complain(int error) {
    if (!complained_)
        log_.warn("serial output is lost: the console log cannot be written",
                  {kv("path", path_), kv("error", std::strerror(error))});
    complained_ = true;
}

}  // namespace masu
