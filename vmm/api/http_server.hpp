// The control socket: accepts clients, a bounded number at a time.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/log.hpp"
#include "vmm/api/http_connection.hpp"
#include "vmm/unix_listener.hpp"

namespace masu::api {

// Loop thread; destroy it outside the handler's call.
class HttpServer {
  public:
    HttpServer(EventLoop& loop, const HttpLimits& limits, DeferredHttpHandler handler, Log log);
    HttpServer(EventLoop& loop, const HttpLimits& limits, HttpHandler handler, Log log);

    // Clients that connect at `path` are served from now on.
    [[nodiscard]] Result<> listen(const std::string& path);
    // One client; over the limit it is answered 503 and cut off.
    void serve(Fd socket);
    [[nodiscard]] std::size_t connections() const noexcept { return connections_.size(); }

  private:
    EventLoop& loop_;
    const HttpLimits limits_;
    DeferredHttpHandler handler_;
    Log log_;
    std::vector<std::unique_ptr<HttpConnection>> connections_;
    std::unique_ptr<UnixListener> listener_;
};

}  // namespace masu::api
