// Asks a worker's control socket: one connected stream socket, on the event loop.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/event_loop.hpp"
#include "vmm/pool/reply_parser.hpp"

namespace masu::pool {

struct Request {
    std::string method;
    std::string path;
    std::string body;
};

// Loop thread. One request at a time; the socket's buffer holds what is sent.
class RequestChannel {
  public:
    // `failed` is called once, from the loop, when the other end has gone or talks nonsense;
    // nothing is answered after that. The channel may be destroyed there, and in an answer.
    [[nodiscard]] static Result<std::unique_ptr<RequestChannel>> create(
        EventLoop& loop, Fd socket, std::function<void(std::string reason)> failed);
    RequestChannel(const RequestChannel&) = delete;
    RequestChannel& operator=(const RequestChannel&) = delete;

    // Not while another one is under way. Sent at once.
    [[nodiscard]] Result<> ask(const Request& request, std::function<void(Reply)> answered);

  private:
    RequestChannel(Fd socket, std::function<void(std::string)> failed)
        : socket_(std::move(socket)), failed_(std::move(failed)) {}
    void receive();
    void give_up(std::string reason);

    Fd socket_;
    std::function<void(std::string)> failed_;
    std::function<void(Reply)> answered_;
    std::string input_;
    EventLoop::Watch watch_;
};

// The text of a request as it goes over the wire.
[[nodiscard]] std::string format_request(const Request& request);

}  // namespace masu::pool
