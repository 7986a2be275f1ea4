// The control socket up to the action: arbitrary bytes in arbitrary pieces. Every reply must be
// whole, and no connection may outlive its client.
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>

#include "vmm/api/http_server.hpp"

using namespace masu;

namespace {

api::HttpReply answer(const api::HttpRequest& request) {
    const auto action = api::route(request);
    if (!action)
        return api::to_reply(std::unexpected(action.error()));
    return api::to_reply(VmmReply(InstanceInfo{.id = std::string(request.body)}));
}

}  // namespace

// The first byte is the size of the pieces (0: all at once); the rest goes over the socket.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 2)
        return 0;
    const std::size_t piece = data[0] == 0 ? size : data[0];
    auto loop = EventLoop::create();
    int pair[2];
    if (!loop || ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        std::abort();
    api::HttpServer server(**loop, api::HttpLimits{.body = 4096, .header = 1024}, answer, Log());
    server.serve(Fd(pair[0]));
    Fd client(pair[1]);
    const auto drain = [&client] {
        char buffer[64 * 1024];
        while (::recv(client.get(), buffer, sizeof buffer, 0) > 0) {
        }
    };
    for (std::size_t at = 1; at < size; at += piece) {
        if (::send(client.get(), data + at, std::min(piece, size - at), MSG_NOSIGNAL) < 0)
            break;
        (*loop)->run_once(0);
        drain();
    }
    client.reset();
    for (std::size_t i = 0; i < size / 1024 + 64 && server.connections() > 0; ++i)
        (*loop)->run_once(0);
    if (server.connections() != 0)
        std::abort();
    return 0;
}
