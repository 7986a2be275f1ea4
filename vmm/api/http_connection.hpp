// One client of the control socket: bounded HTTP/1.1 over a stream socket, on the event loop.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/event_loop.hpp"
#include "base/fd.hpp"
#include "vmm/api/routes.hpp"

namespace masu::api {

struct HttpLimits {
    std::size_t body = 51200;
    std::size_t header = 8192;
    // Replies that wait for a slow reader; beyond it no further request of that client is handled.
    std::size_t unsent = 256 * std::size_t{1024};
    // A client that has begun a request, or has replies to read, and does nothing for so long is
    // cut off. One that waits between requests may wait for ever.
    Nanoseconds stall = 30'000'000'000;
    std::size_t connections = 10;  // of a server, at a time
};

using HttpHandler = std::function<HttpReply(const HttpRequest&)>;
// Takes the reply to one request, at once or later, on the loop's thread. The first call counts;
// when the client has gone meanwhile, the reply is dropped.
using HttpAnswer = std::function<void(HttpReply)>;
// For handlers that cannot reply at once. The request is there during the call only.
using DeferredHttpHandler = std::function<void(const HttpRequest&, HttpAnswer)>;

// Requests on one connection are answered in order, and the next one is looked at when the one
// before has its reply; pipelining and keep-alive are HTTP's own. A
// request that is not HTTP, or too large, is answered with 400 {"error": ...} and ends the
// connection.
class HttpConnection {
  public:
    // `closed` is called once, from the loop, as the last thing the connection does: its owner may
    // destroy it there.
    [[nodiscard]] static Result<std::unique_ptr<HttpConnection>> create(
        EventLoop& loop, Fd socket, const HttpLimits& limits, DeferredHttpHandler handler,
        std::function<void(HttpConnection&)> closed);
    ~HttpConnection();
    HttpConnection(const HttpConnection&) = delete;
    HttpConnection& operator=(const HttpConnection&) = delete;

  private:
    struct Parser;

    HttpConnection(Fd socket, const HttpLimits& limits, DeferredHttpHandler handler,
                   std::function<void(HttpConnection&)> closed);
    void on_events(std::uint32_t events);
    void on_stall();
    bool receive();
    void handle_input();
    bool handle_one();
    void ask_handler();
    void take_answer(const HttpReply& reply);
    void respond(const HttpReply& reply, bool keep_alive);
    void send_pending();
    void settle();

    Fd socket_;
    const HttpLimits limits_;
    DeferredHttpHandler handler_;
    std::function<void(HttpConnection&)> closed_;
    std::unique_ptr<Parser> parser_;
    std::string input_;      // received, not parsed yet
    std::string output_;     // replies not sent yet
    bool finished_ = false;  // no further request is read; ends when output_ is sent
    bool input_ended_ = false;
    bool said_goodbye_ = false;  // our side is shut down; the client's rest is thrown away
    bool broken_ = false;        // ends at once
    // A request whose reply is still to come.
    struct Asked {
        HttpConnection& connection;
        bool keep_alive = false;
        bool in_handler = true;
    };
    std::shared_ptr<Asked> asked_;
    EventLoop::Watch watch_;
    std::optional<EventLoop::Timer> stall_timer_;
};

// The text of a reply, as it goes over the wire.
[[nodiscard]] std::string format_reply(const HttpReply& reply, bool keep_alive);

}  // namespace masu::api
