#include "devices/vsock/connection.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>

#include "devices/vsock/connect_line.hpp"

namespace masu::vsock {
namespace {

constexpr std::uint32_t watched = EPOLLIN | EPOLLRDHUP | EPOLLET;

bool is_for_later(int error) {
    return error == EAGAIN || error == EINTR;
}

}  // namespace

Result<> Connection::watch(EventLoop& loop, EventLoop::Handler handler) {
    watch_ = TRY(loop.watch(socket_.get(), watched, std::move(handler)));
    return {};
}

void Connection::watch_writing(bool wanted) {
    if (wanted != std::exchange(watching_writing_, wanted))
        watch_.set_events(wanted ? watched | EPOLLOUT : watched);
}

void Connection::heard(std::uint32_t events) {
    if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0)
        readable_ = true;
    if ((events & EPOLLHUP) != 0)
        hung_up_ = true;
    if ((events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0)
        flush();
}

// Looked at first, so that what follows the line stays in the socket.
Connection::Greeted Connection::greet(std::uint32_t& port) noexcept {
    std::array<char, max_connect_line> text{};
    const auto seen = ::recv(socket_.get(), text.data(), text.size(), MSG_PEEK | MSG_DONTWAIT);
    if (seen < 0)
        return is_for_later(errno) ? Greeted::NotYet : Greeted::Refused;
    if (seen == 0)
        return Greeted::Refused;
    const auto line = parse_connect_line({text.data(), static_cast<std::size_t>(seen)});
    if (line.state == ConnectLine::State::Incomplete)
        return Greeted::NotYet;
    if (line.state == ConnectLine::State::Bad ||
        ::recv(socket_.get(), text.data(), line.size, MSG_DONTWAIT) !=
            static_cast<ssize_t>(line.size))
        return Greeted::Refused;
    port = line.port;
    return Greeted::Asked;
}

// The first bytes this program gets, so there is room for them.
bool Connection::confirm() noexcept {
    std::array<char, 32> text{};
    const auto end = fmt::format_to_n(text.data(), text.size(), "OK {}\n", ports.host).out;
    const auto size = end - text.data();
    return ::send(socket_.get(), text.data(), static_cast<std::size_t>(size),
                  MSG_DONTWAIT | MSG_NOSIGNAL) == size;
}

void Connection::write_failed(int error) noexcept {
    if (is_for_later(error))
        return;
    // EPIPE: it has shut down reading, and may still write. The guest is told, and what it sent
    // meanwhile has nobody to go to.
    host_reads_ = false;
    receive_credit.forward(static_cast<std::uint32_t>(waiting_.size() - begin_));
    waiting_.clear();
    begin_ = 0;
}

void Connection::pass_on(std::span<const iovec> payload, std::size_t size) {
    std::size_t done = 0;
    if (host_reads_ && flushed() && size > 0) {
        const msghdr message{.msg_iov = const_cast<iovec*>(payload.data()),  // NOLINT: API
                             .msg_iovlen = std::min<std::size_t>(payload.size(), IOV_MAX)};
        const auto sent = ::sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0)
            write_failed(errno);
        else
            done = static_cast<std::size_t>(sent);
    }
    if (!host_reads_) {
        receive_credit.forward(static_cast<std::uint32_t>(size));
        return;
    }
    receive_credit.forward(static_cast<std::uint32_t>(done));
    for (const auto& piece : payload) {
        const auto skipped = std::min(done, piece.iov_len);
        done -= skipped;
        const auto* from = static_cast<const std::byte*>(piece.iov_base);
        waiting_.insert(waiting_.end(), from + skipped, from + piece.iov_len);
    }
    watch_writing(!flushed());
}

void Connection::flush() {
    while (!flushed()) {
        const auto sent = ::send(socket_.get(), waiting_.data() + begin_, waiting_.size() - begin_,
                                 MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0) {
            write_failed(errno);
            break;
        }
        begin_ += static_cast<std::size_t>(sent);
        receive_credit.forward(static_cast<std::uint32_t>(sent));
    }
    if (flushed()) {
        // Most connections never need it again.
        waiting_ = {};
        begin_ = 0;
        if (sending_ends_)
            ::shutdown(socket_.get(), SHUT_WR);
    }
    watch_writing(!flushed());
}

void Connection::finish_sending() {
    sending_ends_ = true;
    flush();
}

void Connection::stop_receiving() noexcept {
    ::shutdown(socket_.get(), SHUT_RD);
}

void Connection::cut() noexcept {
    ::shutdown(socket_.get(), SHUT_RDWR);
}

std::size_t Connection::receive(std::span<const iovec> room) noexcept {
    msghdr message{.msg_iov = const_cast<iovec*>(room.data()),  // NOLINT: the API's
                   .msg_iovlen = std::min<std::size_t>(room.size(), IOV_MAX)};
    const auto got = ::recvmsg(socket_.get(), &message, MSG_DONTWAIT);
    if (got > 0)
        return static_cast<std::size_t>(got);
    if (got == 0)
        end_ = true;
    else if (is_for_later(errno))
        readable_ = false;
    else
        broken_ = true;
    return 0;
}

std::uint32_t Connection::host_shutdown() const noexcept {
    // What a program leaves behind when it closes is still read, by a guest that reads.
    const bool ended = end_ || (hung_up_ && !guest_reads());
    const bool deaf = !host_reads_ || (hung_up_ && ended);
    return (ended ? shutdown::send : 0) | (deaf ? shutdown::receive : 0);
}

bool Connection::has_work() const noexcept {
    if (state == State::Dying || owes_opening)
        return true;
    if (state != State::Open)
        return false;
    return owes_credit_update || owes_credit_request || may_send() ||
           (host_shutdown() & ~told_shutdown) != 0;
}

}  // namespace masu::vsock
