// The list of clients of the control socket.
#include "vmm/api/http_server.hpp"

#include <sys/socket.h>

#include <algorithm>

namespace masu::api {

HttpServer::HttpServer(EventLoop& loop, const HttpLimits& limits, HttpHandler handler, Log log)
    : HttpServer(loop, limits,
                 DeferredHttpHandler([handler = std::move(handler)](const HttpRequest& request,
                                                                    const HttpAnswer& answer) {
                     answer(handler(request));
                 }),
                 std::move(log)) {}

HttpServer::HttpServer(EventLoop& loop, const HttpLimits& limits, DeferredHttpHandler handler,
                       Log log)
    : loop_(loop), limits_(limits), handler_(std::move(handler)), log_(log.with_component("api")) {}

Result<> HttpServer::listen(const std::string& path) {
    listener_ =
        TRY(UnixListener::create(loop_, path, [this](Fd client) { serve(std::move(client)); }));
    log_.info("control socket listens", {kv("path", path)});
    return {};
}

void HttpServer::serve(Fd socket) {
    if (connections_.size() >= limits_.connections) {
        const auto text = format_reply(
            {503, error_body("error", "The server has its full number of connections; try again.")},
            false);
        // A fresh socket has room for this; where it has not, closing says it as well.
        [[maybe_unused]] const auto sent =
            ::send(socket.get(), text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        return;
    }
    auto connection = HttpConnection::create(
        loop_, std::move(socket), limits_, handler_, [this](HttpConnection& closed) {
            std::erase_if(connections_, [&](const auto& open) { return open.get() == &closed; });
        });
    if (connection)
        connections_.push_back(*std::move(connection));
    else
        log_.error("cannot serve a client", {kv("error", connection.error().message)});
}

}  // namespace masu::api
