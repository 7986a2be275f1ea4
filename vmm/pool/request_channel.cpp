#include "vmm/pool/request_channel.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>

namespace masu::pool {

Result<std::unique_ptr<RequestChannel>> RequestChannel::create(
    EventLoop& loop, Fd socket, std::function<void(std::string reason)> failed) {
    std::unique_ptr<RequestChannel> channel(
        new RequestChannel(std::move(socket), std::move(failed)));
    auto* self = channel.get();
    self->watch_ =
        TRY(loop.watch(self->socket_.get(), EPOLLIN, [self](std::uint32_t) { self->receive(); }));
    return channel;
}

std::string format_request(const Request& request) {
    return fmt::format("{} {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{}",
                       request.method, request.path, request.body.size(), request.body);
}

Result<> RequestChannel::ask(const Request& request, std::function<void(Reply)> answered) {
    const auto text = format_request(request);
    const auto sent = ::send(socket_.get(), text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0)
        return fail_errno(errno, "a worker cannot be asked");
    if (static_cast<std::size_t>(sent) < text.size())
        return fail("a request of {} bytes is too large for a worker's socket", text.size());
    answered_ = std::move(answered);
    return {};
}

void RequestChannel::receive() {
    std::array<char, 16 * 1024> buffer;
    const auto count = ::recv(socket_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (count <= 0)
        return give_up("the worker has ended");
    input_.append(buffer.data(), static_cast<std::size_t>(count));
    if (!answered_)
        return give_up("the worker talks without being asked");
    auto reply = take_reply(input_);
    if (!reply)
        return give_up(std::move(reply).error().message);
    if (!*reply)
        return;
    const auto answered = std::exchange(answered_, nullptr);
    answered(**std::move(reply));  // may destroy this
}

void RequestChannel::give_up(std::string reason) {
    watch_ = {};
    answered_ = nullptr;
    const auto failed = failed_;
    failed(std::move(reason));  // may destroy this
}

}  // namespace masu::pool
