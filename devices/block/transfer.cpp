// Steps of one request.
#include "devices/block/transfer.hpp"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace masu::block {
namespace {

// What zeros are written from where the host cannot zero a range itself. Aligned for O_DIRECT; in
// .bss, and never written to.
constexpr std::size_t zero_bytes = 16 * 1024;
constexpr std::size_t zero_vectors = 64;  // at most 1 MiB a step
alignas(4096) std::array<std::byte, zero_bytes> zeros{};

bool unsupported(int error) noexcept {
    // EINVAL: a range the file system or device cannot zero at this alignment.
    return error == EOPNOTSUPP || error == ENOSYS || error == EINVAL || error == ENODEV;
}

}  // namespace

void Transfer::start(const File& file, const Request& request) noexcept {
    file_ = &file;
    request_ = request;
    done_ = 0;
    resumed_ = false;
    zero_fill_ = false;
    rest_.clear();
    switch (request.op) {
        case Op::Read:
            step_ = Step::Read;
            break;
        case Op::Write:
            step_ = Step::Write;
            break;
        case Op::Flush:
            step_ = Step::Sync;
            break;
        case Op::Discard:
            step_ = Step::PunchHole;
            break;
        case Op::WriteZeroes:
            step_ = request.may_unmap ? Step::PunchHole : Step::ZeroRange;
            break;
    }
}

std::span<const iovec> Transfer::buffers() const noexcept {
    if (step_ != Step::Read && step_ != Step::Write)
        return {};
    return resumed_ ? std::span<const iovec>(rest_) : request_.buffers;
}

std::optional<int> Transfer::advance(std::int64_t result) noexcept {
    if (result == -EINTR || result == -EAGAIN)
        return std::nullopt;
    if (result < 0)
        return fall_back(static_cast<int>(-result));
    if (step_ == Step::Read || step_ == Step::Write)
        return moved(static_cast<std::uint64_t>(result));
    return 0;
}

std::optional<int> Transfer::moved(std::uint64_t bytes) noexcept {
    if (bytes >= size())
        return 0;
    if (bytes == 0)
        return EIO;  // the file was cut short under us
    if (zero_fill_) {
        done_ += bytes;
        begin_zero_fill();
        return std::nullopt;
    }
    if (!resumed_)
        rest_.assign(request_.buffers.begin(), request_.buffers.end());
    resumed_ = true;
    done_ += bytes;
    auto first = rest_.begin();
    for (; first != rest_.end() && bytes >= first->iov_len; ++first)
        bytes -= first->iov_len;
    rest_.erase(rest_.begin(), first);
    if (rest_.empty())
        return EIO;
    rest_.front().iov_base = static_cast<std::byte*>(rest_.front().iov_base) + bytes;
    rest_.front().iov_len -= bytes;
    return std::nullopt;
}

std::optional<int> Transfer::fall_back(int error) noexcept {
    if (!unsupported(error) || step_ == Step::Read || step_ == Step::Write || step_ == Step::Sync)
        return error;
    if (request_.op == Op::Discard) {
        // Discard is a hint: keeping the data is as good as dropping it.
        if (file_->is_block_device()) {
            std::uint64_t range[2] = {request_.offset, request_.size};
            (void)::ioctl(file_->fds()[0], BLKDISCARD, range);
        }
        return 0;
    }
    if (step_ == Step::PunchHole)
        step_ = Step::ZeroRange;
    else
        begin_zero_fill();
    return std::nullopt;
}

void Transfer::begin_zero_fill() noexcept {
    zero_fill_ = true;
    resumed_ = true;
    step_ = Step::Write;
    rest_.clear();
    std::uint64_t left = size();
    while (left != 0 && rest_.size() < zero_vectors) {
        const auto part = std::min<std::uint64_t>(left, zero_bytes);
        rest_.push_back({zeros.data(), part});
        left -= part;
    }
}

std::int64_t Transfer::perform() const noexcept {
    const int fd = file_->fds()[fd_index()];
    const auto at = static_cast<off_t>(offset());
    const auto length = static_cast<off_t>(size());
    std::int64_t result = -1;
    switch (step_) {
        case Step::Read:
            result = ::preadv(fd, buffers().data(), static_cast<int>(buffers().size()), at);
            break;
        case Step::Write:
            result = ::pwritev(fd, buffers().data(), static_cast<int>(buffers().size()), at);
            break;
        case Step::Sync:
            result = ::fdatasync(fd);
            break;
        case Step::PunchHole:
            result = ::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, length);
            break;
        case Step::ZeroRange:
            result = ::fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, at, length);
            break;
    }
    return result < 0 ? -errno : result;
}

int Transfer::run() noexcept {
    for (;;) {
        if (const auto error = advance(perform()))
            return *error;
    }
}

}  // namespace masu::block
