// Framing on a stream socket that never blocks.
#include "devices/net/passt.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>

namespace masu::net {

Passt::Passt(Fd socket)
    : socket_(std::move(socket)), incoming_(2 * (length_size + max_frame_size)) {
    outgoing_.reserve(length_size + max_frame_size);
}

Result<std::unique_ptr<Passt>> Passt::adopt(Fd socket) {
    int type = 0;
    socklen_t size = sizeof type;
    if (::getsockopt(socket.get(), SOL_SOCKET, SO_TYPE, &type, &size) < 0 || type != SOCK_STREAM)
        return fail("descriptor {} is not a stream socket to passt", socket.get());
    if (::fcntl(socket.get(), F_SETFL, O_NONBLOCK) < 0 ||
        ::fcntl(socket.get(), F_SETFD, FD_CLOEXEC) < 0)
        return fail_errno(errno, "cannot set up the socket to passt");
    return std::unique_ptr<Passt>(new Passt(std::move(socket)));
}

Received Passt::receive(unsigned /*queue*/, std::span<std::byte> buffer) noexcept {
    for (bool have_read = false;; have_read = true) {
        const auto bytes = unread();
        if (bytes.size() >= length_size) {
            const std::size_t length = get32(bytes.data());
            // A length that no frame has: the stream has lost its step, and never finds it again.
            if (length < ethernet_header_size || length > max_frame_size)
                closed_ = true;
            if (closed_)
                return {IoStatus::Closed, 0};
            if (bytes.size() >= length_size + length) {
                std::memset(buffer.data(), 0, sizeof(NetHeader));
                std::memcpy(buffer.data() + sizeof(NetHeader), bytes.data() + length_size, length);
                begin_ += length_size + length;
                return {IoStatus::Done, sizeof(NetHeader) + length};
            }
        }
        if (closed_)
            return {IoStatus::Closed, 0};
        if (have_read)
            return {IoStatus::Again, 0};
        std::memmove(incoming_.data(), bytes.data(), bytes.size());
        end_ = bytes.size();
        begin_ = 0;
        const auto got =
            ::recv(socket_.get(), incoming_.data() + end_, incoming_.size() - end_, MSG_DONTWAIT);
        if (got > 0)
            end_ += static_cast<std::size_t>(got);
        else if (got == 0 || (errno != EAGAIN && errno != EINTR))
            closed_ = true;
    }
}

IoStatus Passt::send(unsigned queue, std::span<const iovec> packet) noexcept {
    if (!flush(queue))
        return IoStatus::Again;
    if (closed_)
        return IoStatus::Closed;
    // The NetHeader is replaced by the length; there is nothing else in it without offloads.
    std::array<iovec, IOV_MAX> pieces;
    const auto count = std::min<std::size_t>(packet.size(), pieces.size());
    std::copy_n(packet.begin(), count, pieces.begin());
    std::size_t length = 0;
    for (const auto& piece : packet.subspan(1, count - 1))
        length += piece.iov_len;
    std::array<std::byte, length_size> prefix{};
    put32(prefix.data(), static_cast<std::uint32_t>(length));
    pieces[0] = {.iov_base = prefix.data(), .iov_len = prefix.size()};

    const msghdr message{.msg_iov = pieces.data(), .msg_iovlen = count};
    const auto sent = ::sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        closed_ = true;
        return IoStatus::Closed;
    }
    std::size_t skip = sent < 0 ? 0 : static_cast<std::size_t>(sent);
    for (const auto& piece : std::span(pieces).first(count)) {
        const auto skipped = std::min(skip, piece.iov_len);
        const auto* from = static_cast<const std::byte*>(piece.iov_base);
        outgoing_.insert(outgoing_.end(), from + skipped, from + piece.iov_len);
        skip -= skipped;
    }
    return IoStatus::Done;
}

bool Passt::flush(unsigned /*queue*/) noexcept {
    if (outgoing_.empty())
        return true;
    const auto sent = closed_ ? -1
                              : ::send(socket_.get(), outgoing_.data(), outgoing_.size(),
                                       MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && (closed_ || (errno != EAGAIN && errno != EINTR))) {
        closed_ = true;
        outgoing_.clear();
        return true;  // the next send() says that it is over
    }
    if (sent > 0)
        outgoing_.erase(outgoing_.begin(), outgoing_.begin() + sent);
    return outgoing_.empty();
}

}  // namespace masu::net
