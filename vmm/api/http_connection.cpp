// HTTP/1.1 with Beast's parser as a pure function of bytes; reading and writing are the loop's.
#include "vmm/api/http_connection.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <cerrno>
#include <optional>

namespace masu::api {

namespace http = boost::beast::http;

struct HttpConnection::Parser {
    explicit Parser(const HttpLimits& limits) {
        parser.header_limit(static_cast<std::uint32_t>(limits.header));
        parser.body_limit(limits.body);
        parser.eager(true);
    }
    http::request_parser<http::string_body> parser;
    bool began = false;  // some of the request has arrived
    bool continued = false;
};

Result<std::unique_ptr<HttpConnection>> HttpConnection::create(
    EventLoop& loop, Fd socket, const HttpLimits& limits, DeferredHttpHandler handler,
    std::function<void(HttpConnection&)> closed) {
    std::unique_ptr<HttpConnection> connection(
        new HttpConnection(std::move(socket), limits, std::move(handler), std::move(closed)));
    auto* self = connection.get();
    self->watch_ = TRY(loop.watch(self->socket_.get(), EPOLLIN,
                                  [self](std::uint32_t events) { self->on_events(events); }));
    self->stall_timer_.emplace(TRY(loop.timer([self] { self->on_stall(); })));
    return connection;
}

HttpConnection::HttpConnection(Fd socket, const HttpLimits& limits, DeferredHttpHandler handler,
                               std::function<void(HttpConnection&)> closed)
    : socket_(std::move(socket)),
      limits_(limits),
      handler_(std::move(handler)),
      closed_(std::move(closed)),
      parser_(std::make_unique<Parser>(limits_)) {}

HttpConnection::~HttpConnection() = default;

void HttpConnection::on_events(std::uint32_t events) {
    // A client that wrote a request and hung up is still heard; EPOLLIN goes on until all is read.
    if ((events & EPOLLERR) != 0 || (events & (EPOLLHUP | EPOLLIN)) == EPOLLHUP)
        broken_ = true;
    if (!broken_ && (events & EPOLLIN) != 0 && !receive())
        input_ended_ = true;
    if (!broken_)
        handle_input();
    settle();
}

void HttpConnection::on_stall() {
    broken_ = true;
    settle();
}

// Reads what is there, up to a bound; false at the end of the stream. After finished_, input is
// read and thrown away: closing a socket with unread input would cost the client our last reply.
bool HttpConnection::receive() {
    std::array<char, 16 * 1024> buffer;
    const auto count = ::recv(socket_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (count == 0)
        return false;
    if (count < 0) {
        broken_ = errno != EAGAIN && errno != EINTR;
        return true;
    }
    if (!finished_)
        input_.append(buffer.data(), static_cast<std::size_t>(count));
    return true;
}

void HttpConnection::handle_input() {
    send_pending();
    while (!broken_ && !finished_ && !asked_ && output_.size() < limits_.unsent && handle_one())
        send_pending();
    if (finished_)
        input_.clear();
    // What is left of a request can never be completed.
    if (input_ended_ && !asked_ && (finished_ || output_.size() < limits_.unsent))
        finished_ = true;
    send_pending();
}

// Feeds the parser; true when a request was completed and given to the handler.
bool HttpConnection::handle_one() {
    if (input_.empty())
        return false;
    auto& parser = parser_->parser;
    boost::system::error_code error;
    parser_->began = true;
    std::size_t consumed = 0;
    while (!error && !parser.is_done() && consumed < input_.size())
        consumed += parser.put(
            boost::asio::const_buffer(input_.data() + consumed, input_.size() - consumed), error);
    input_.erase(0, consumed);
    if (error && error != http::error::need_more) {
        const bool too_large =
            error == http::error::body_limit || error == http::error::header_limit;
        respond({400,
                 error_body("error",
                            too_large ? fmt::format("The request is too large: a body may "
                                                    "have {} bytes, the head {}.",
                                                    limits_.body, limits_.header)
                                      : "The request is not valid HTTP: " + error.message() + ".")},
                false);
        return false;
    }
    if (parser.is_header_done() && parser.chunked()) {
        respond(
            {400, error_body("error", "Chunked bodies are not supported; send Content-Length.")},
            false);
        return false;
    }
    if (parser.is_done()) {
        ask_handler();
        parser_ = std::make_unique<Parser>(limits_);
        return true;
    }
    if (parser.is_header_done() && !parser_->continued &&
        boost::beast::iequals(parser.get()[http::field::expect], "100-continue")) {
        parser_->continued = true;
        output_ += "HTTP/1.1 100 Continue\r\n\r\n";
    }
    return false;
}

void HttpConnection::ask_handler() {
    const auto& message = parser_->parser.get();
    const auto method = message.method_string();
    const auto target = message.target();
    const bool keep_alive = parser_->parser.keep_alive();
    switch (message.method()) {
        case http::verb::get:
        case http::verb::put:
        case http::verb::patch:
        case http::verb::delete_:
            asked_ = std::make_shared<Asked>(*this, keep_alive);
            handler_(
                {{method.data(), method.size()}, {target.data(), target.size()}, message.body()},
                [waiting = std::weak_ptr(asked_)](const HttpReply& reply) {
                    if (const auto asked = waiting.lock())
                        asked->connection.take_answer(reply);
                });
            if (asked_)
                asked_->in_handler = false;
            return;
        default:
            respond({400, error_body("error", "The methods are GET, PUT, PATCH and DELETE.")},
                    false);
    }
}

// Within the handler's call the loop of handle_input() goes on by itself.
void HttpConnection::take_answer(const HttpReply& reply) {
    const auto asked = std::exchange(asked_, nullptr);
    respond(reply, asked->keep_alive);
    if (asked->in_handler)
        return;
    handle_input();
    settle();
}

std::string format_reply(const HttpReply& reply, bool keep_alive) {
    const auto reason = [&]() -> std::string_view {
        switch (reply.status) {
            case 200:
                return "OK";
            case 204:
                return "No Content";
            case 400:
                return "Bad Request";
            case 413:
                return "Payload Too Large";
            case 503:
                return "Service Unavailable";
            default:
                return "";
        }
    }();
    auto text = fmt::format("HTTP/1.1 {} {}\r\nServer: Masu API\r\nConnection: {}\r\n",
                            reply.status, reason, keep_alive ? "keep-alive" : "close");
    if (reply.status != 204)
        text += fmt::format("Content-Type: application/json\r\nContent-Length: {}\r\n",
                            reply.body.size());
    text += "\r\n";
    if (reply.status != 204)
        text += reply.body;
    return text;
}

void HttpConnection::respond(const HttpReply& reply, bool keep_alive) {
    output_ += format_reply(reply, keep_alive);
    finished_ = finished_ || !keep_alive;
}

void HttpConnection::send_pending() {
    while (!output_.empty() && !broken_) {
        const auto count =
            ::send(socket_.get(), output_.data(), output_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0) {
            broken_ = errno != EAGAIN;
            return;
        }
        output_.erase(0, static_cast<std::size_t>(count));
    }
}

// What to wait for next, or the end. The last thing a handler does: `this` may be gone afterwards.
void HttpConnection::settle() {
    if (finished_ && output_.empty() && !broken_ && !said_goodbye_) {
        ::shutdown(socket_.get(), SHUT_WR);
        said_goodbye_ = true;
        stall_timer_->arm(limits_.stall);
    }
    if (broken_ || (finished_ && output_.empty() && input_ended_)) {
        const auto closed = closed_;
        closed(*this);
        return;
    }
    std::uint32_t events = 0;
    if (!input_ended_ && !asked_ && (finished_ || output_.size() < limits_.unsent))
        events |= EPOLLIN;
    if (!output_.empty())
        events |= EPOLLOUT;
    watch_.set_events(events);
    if (said_goodbye_)
        return;  // what the client still sends buys it no time
    if (!output_.empty() || parser_->began)
        stall_timer_->arm(limits_.stall);
    else
        stall_timer_->disarm();
}

}  // namespace masu::api
