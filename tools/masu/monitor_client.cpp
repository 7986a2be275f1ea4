// HTTP over the control socket, with Beast doing the parsing.
#include "tools/masu/monitor_client.hpp"

#include <poll.h>
#include <sys/socket.h>

#include <boost/beast/http.hpp>
#include <boost/json.hpp>

#include "base/bytes.hpp"
#include "base/clock.hpp"
#include "tools/masu/unix_socket.hpp"

namespace masu::cli {
namespace {

namespace http = boost::beast::http;
using Parser = http::response_parser<http::string_body>;

constexpr std::size_t answer_limit = 4 * MiB;

class Deadline {
  public:
    explicit Deadline(int timeout_ms)
        : end_(clock_.now() + static_cast<Nanoseconds>(timeout_ms) * 1'000'000) {}

    // False when the time is over.
    [[nodiscard]] bool wait(int fd, short events) const {
        for (;;) {
            const auto now = clock_.now();
            if (now >= end_)
                return false;
            pollfd entry{fd, events, 0};
            const auto left = static_cast<int>((end_ - now) / 1'000'000 + 1);
            const auto ready = ::poll(&entry, 1, left);
            if (ready > 0 || (ready < 0 && errno != EINTR))
                return true;  // an error shows in the read or write that follows
        }
    }

  private:
    SystemClock clock_;
    Nanoseconds end_;
};

Result<> send_all(int fd, std::string_view text, const Deadline& deadline) {
    while (!text.empty()) {
        if (!deadline.wait(fd, POLLOUT))
            return fail("does not take the request");
        const auto sent = ::send(fd, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0)
            text.remove_prefix(static_cast<std::size_t>(sent));
        else if (errno != EINTR && errno != EAGAIN)
            return fail_errno(errno, "broke the connection");
    }
    return {};
}

Result<> receive(int fd, Parser& parser, const Deadline& deadline) {
    std::string pending;
    char buffer[16 * 1024];
    while (!parser.is_done()) {
        if (!deadline.wait(fd, POLLIN))
            return fail("does not answer");
        const auto count = ::recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
        if (count < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (count <= 0)
            return fail("ended before it answered");
        pending.append(buffer, static_cast<std::size_t>(count));
        boost::system::error_code error;
        const auto used = parser.put(boost::asio::buffer(pending), error);
        if (error && error != http::error::need_more)
            return fail("answered what is not HTTP: {}", error.message());
        pending.erase(0, used);
    }
    return {};
}

// The text that says why: fault_message, or `error` for what never reached the API.
std::string refusal(const Parser& parser) {
    boost::system::error_code error;
    const auto body = boost::json::parse(parser.get().body(), error);
    if (!error && body.is_object())
        for (const char* key : {"fault_message", "error"})
            if (const auto* text = body.get_object().if_contains(key); text && text->is_string())
                return std::string(text->get_string());
    return fmt::format("HTTP status {}", parser.get().result_int());
}

}  // namespace

Result<boost::json::value> MonitorClient::call(std::string_view method, std::string_view path,
                                               const std::string& body,
                                               std::optional<int> timeout_ms) const {
    auto request = fmt::format("{} {} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n",
                               method, path);
    if (!body.empty())
        request +=
            fmt::format("Content-Type: application/json\r\nContent-Length: {}\r\n", body.size());
    request += "\r\n" + body;

    const auto context = fmt::format("the monitor of {}", name_);
    const Deadline deadline(timeout_ms.value_or(timeout_ms_));
    const auto fd = TRY(connect_unix(socket_));
    Parser parser;
    parser.eager(true);
    parser.body_limit(answer_limit);
    if (auto sent = send_all(fd.get(), request, deadline); !sent)
        return fail("{} {}", context, sent.error().message);
    if (auto received = receive(fd.get(), parser, deadline); !received)
        return fail("{} {} ({} {})", context, received.error().message, method, path);
    if (parser.get().result_int() / 100 != 2)
        return fail("{}", refusal(parser));
    if (parser.get().body().empty())
        return boost::json::value();
    boost::system::error_code error;
    auto value = boost::json::parse(parser.get().body(), error);
    if (error)
        return fail("{} answered what is not JSON: {}", context, error.message());
    return value;
}

Result<boost::json::value> MonitorClient::get(std::string_view path,
                                              std::optional<int> timeout_ms) const {
    return call("GET", path, {}, timeout_ms);
}

Result<> MonitorClient::put(std::string_view path, const boost::json::value& body,
                            std::optional<int> timeout_ms) const {
    TRY(call("PUT", path, boost::json::serialize(body), timeout_ms));
    return {};
}

Result<> MonitorClient::patch(std::string_view path, const boost::json::value& body,
                              std::optional<int> timeout_ms) const {
    TRY(call("PATCH", path, boost::json::serialize(body), timeout_ms));
    return {};
}

Result<> MonitorClient::action(std::string_view type, std::optional<int> timeout_ms) const {
    return put("/actions", boost::json::object{{"action_type", type}}, timeout_ms);
}

}  // namespace masu::cli
