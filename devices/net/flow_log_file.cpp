// Appending and rotating.
#include "devices/net/flow_log_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace masu::net {

Result<FlowLogFile> FlowLogFile::open(std::string path, std::uint64_t limit) {
    FlowLogFile file(std::move(path), limit);
    if (auto opened = file.reopen(); !opened)
        return std::unexpected(opened.error());
    return file;
}

Result<> FlowLogFile::reopen() {
    file_ = Fd(::open(path_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!file_)
        return fail_errno(errno, "cannot open the flow log {}", path_);
    struct stat facts{};
    if (::fstat(file_.get(), &facts) < 0)
        return fail_errno(errno, "cannot look at the flow log {}", path_);
    size_ = static_cast<std::uint64_t>(facts.st_size);
    return {};
}

Result<> FlowLogFile::write(std::string_view lines) {
    if (size_ != 0 && size_ + lines.size() > limit_) {
        const auto before = path_ + ".1";
        if (::rename(path_.c_str(), before.c_str()) < 0)
            return fail_errno(errno, "cannot put the flow log {} aside", path_);
        TRY(reopen());
    }
    while (!lines.empty()) {
        const auto written = ::write(file_.get(), lines.data(), lines.size());
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return fail_errno(errno, "cannot write the flow log {}", path_);
        size_ += static_cast<std::uint64_t>(written);
        lines.remove_prefix(static_cast<std::size_t>(written));
    }
    return {};
}

}  // namespace masu::net
