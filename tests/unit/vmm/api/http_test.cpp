// The HTTP layer with rude clients.
#include <doctest/doctest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "vmm/api/http_server.hpp"

using namespace masu;
using namespace masu::api;

namespace {

// A server that answers each request with what it understood of it.
struct Server {
    std::unique_ptr<EventLoop> loop = *EventLoop::create();
    unsigned requests = 0;
    std::string reply_body;
    HttpServer server{*loop, limits(),
                      [this](const HttpRequest& request) {
                          ++requests;
                          if (request.method == "PUT" && request.target == "/quiet")
                              return HttpReply{};
                          if (!reply_body.empty())
                              return HttpReply{200, reply_body};
                          return HttpReply{200, fmt::format("<{} {} {}>", request.method,
                                                            request.target, request.body)};
                      },
                      Log()};

    static HttpLimits limits() {
        HttpLimits limits;
        limits.body = 100;
        limits.unsent = 64 * 1024;
        limits.stall = 50'000'000;
        return limits;
    }
    Fd connect() {
        int pair[2];
        REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
        server.serve(Fd(pair[0]));
        return Fd(pair[1]);
    }
    void turn() {
        for (int i = 0; i < 8; ++i)
            loop->run_once(0);
    }
    // Until the server has let the connection go.
    void turn_until_empty() {
        for (int i = 0; i < 100 && server.connections() > 0; ++i)
            loop->run_once(100);
    }
};

void send_text(const Fd& socket, std::string_view text) {
    REQUIRE(::send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL) ==
            static_cast<ssize_t>(text.size()));
}

std::string receive(const Fd& socket) {
    std::string text;
    char buffer[4096];
    for (;;) {
        const auto count = ::recv(socket.get(), buffer, sizeof buffer, MSG_DONTWAIT);
        if (count <= 0)
            return text;
        text.append(buffer, static_cast<std::size_t>(count));
    }
}

bool is_closed(const Fd& socket) {
    char byte = 0;
    return ::recv(socket.get(), &byte, 1, MSG_DONTWAIT) == 0;
}

std::size_t count(std::string_view text, std::string_view part) {
    std::size_t found = 0;
    for (auto at = text.find(part); at != std::string_view::npos; at = text.find(part, at + 1))
        ++found;
    return found;
}

bool contains(std::string_view text, std::string_view part) {
    return count(text, part) > 0;
}

}  // namespace

TEST_CASE("a request is answered and the connection kept") {
    Server server;
    const auto client = server.connect();
    send_text(client, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    server.turn();
    const auto reply = receive(client);
    CHECK(reply.starts_with("HTTP/1.1 200 "));
    CHECK(contains(reply, "Server: Masu API\r\n"));
    CHECK(contains(reply, "Connection: keep-alive\r\n"));
    CHECK(contains(reply, "Content-Type: application/json\r\n"));
    CHECK(reply.ends_with("Content-Length: 9\r\n\r\n<GET /a >"));
    send_text(client, "PUT /quiet HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}");
    server.turn();
    const auto quiet = receive(client);
    CHECK(quiet.starts_with("HTTP/1.1 204 "));
    CHECK_FALSE(contains(quiet, "Content-"));
    CHECK(quiet.ends_with("\r\n\r\n"));
}

TEST_CASE("a request may come byte by byte") {
    Server server;
    const auto client = server.connect();
    const std::string_view text = "PUT /a HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody";
    for (const char c : text) {
        CHECK(server.requests == 0);
        send_text(client, {&c, 1});
        server.turn();
    }
    CHECK(server.requests == 1);
    CHECK(receive(client).ends_with("<PUT /a body>"));
}

TEST_CASE("pipelined requests are answered in order") {
    Server server;
    const auto client = server.connect();
    send_text(client,
              "GET /1 HTTP/1.1\r\n\r\nPUT /2 HTTP/1.1\r\nContent-Length: 1\r\n\r\nxGET /3 HTTP/1.1"
              "\r\n\r\nGET /4 HT");
    server.turn();
    const auto text = receive(client);
    CHECK(server.requests == 3);
    CHECK(text.find("<GET /1 >") < text.find("<PUT /2 x>"));
    CHECK(text.find("<PUT /2 x>") < text.find("<GET /3 >"));
    send_text(client, "TP/1.1\r\n\r\n");
    server.turn();
    CHECK(contains(receive(client), "<GET /4 >"));
}

TEST_CASE("Connection: close, HTTP/1.0 and half-closed clients get their answer, then the end") {
    for (const char* request : {"GET /a HTTP/1.1\r\nConnection: close\r\n\r\n",
                                "GET /a HTTP/1.0\r\n\r\n", "GET /a HTTP/1.1\r\n\r\n"}) {
        CAPTURE(request);
        Server server;
        const auto client = server.connect();
        send_text(client, request);
        ::shutdown(client.get(), SHUT_WR);
        server.turn();
        CHECK(receive(client).ends_with("<GET /a >"));
        CHECK(is_closed(client));
        CHECK(server.server.connections() == 0);
    }
}

TEST_CASE("a client that hangs up at once is still heard") {
    Server server;
    {
        const auto client = server.connect();
        send_text(client, "PUT /quiet HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}");
    }
    server.turn();
    CHECK(server.requests == 1);
    CHECK(server.server.connections() == 0);
}

TEST_CASE("a body over the limit is refused before it is read") {
    Server server;
    const auto client = server.connect();
    send_text(client, "PUT /a HTTP/1.1\r\nContent-Length: 101\r\n\r\n");
    server.turn();
    const auto text = receive(client);
    CHECK(text.starts_with("HTTP/1.1 400 "));
    CHECK(contains(text, "{\"error\":\"The request is too large"));
    CHECK(contains(text, "Connection: close\r\n"));
    CHECK(server.requests == 0);
    CHECK(is_closed(client));
    // The client still sends what it announced; nothing of it is taken for a request.
    send_text(client, "GET /b HTTP/1.1\r\n\r\n");
    server.turn_until_empty();
    CHECK(server.requests == 0);
    CHECK(server.server.connections() == 0);
}

TEST_CASE("an endless head is cut off") {
    Server server;
    const auto client = server.connect();
    send_text(client, "GET /a HTTP/1.1\r\n" + std::string(9000, 'x'));
    server.turn();
    CHECK(contains(receive(client), "HTTP/1.1 400 "));
}

TEST_CASE("what is not HTTP is refused") {
    for (const char* garbage :
         {"\r\n\r\n\x01\x02\x03 / HTTP/1.1\r\n\r\n", "hello\r\n\r\n", "GET /a HTTP/9.9\r\n\r\n",
          "GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
          "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
          "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
          "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "HEAD / HTTP/1.1\r\n\r\n"}) {
        CAPTURE(garbage);
        Server server;
        const auto client = server.connect();
        send_text(client, garbage);
        server.turn();
        const auto text = receive(client);
        CHECK(contains(text, "HTTP/1.1 400 "));
        CHECK(contains(text, "{\"error\":"));
        CHECK(server.requests == 0);
        CHECK(is_closed(client));
    }
}

TEST_CASE("Expect: 100-continue is told to go on, once") {
    Server server;
    const auto client = server.connect();
    send_text(client, "PUT /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    server.turn();
    CHECK(receive(client) == "HTTP/1.1 100 Continue\r\n\r\n");
    send_text(client, "bo");
    server.turn();
    CHECK(receive(client).empty());
    send_text(client, "dy");
    server.turn();
    CHECK(receive(client).ends_with("<PUT /a body>"));
}

TEST_CASE("a client that does not read cannot make the server collect replies") {
    Server server;
    server.reply_body = std::string(16 * 1024, 'r');
    const auto client = server.connect();
    const std::string_view request = "GET /a HTTP/1.1\r\n\r\n";
    unsigned sent = 0;
    for (; sent < 100'000; ++sent) {
        if (::send(client.get(), request.data(), request.size(), MSG_DONTWAIT | MSG_NOSIGNAL) !=
            static_cast<ssize_t>(request.size()))
            break;
        server.turn();
    }
    CHECK(server.requests < sent);
    // It goes on, in order, once the client reads.
    std::size_t received = 0;
    const unsigned handled = server.requests;
    for (int i = 0; i < 1000 && server.requests < handled + 4; ++i) {
        received += receive(client).size();
        server.turn();
    }
    CHECK(received > 0);
    CHECK(server.requests >= handled + 4);
}

TEST_CASE("a stuck client is cut off, a waiting one is not") {
    Server server;
    const auto waiting = server.connect();
    const auto stuck = server.connect();
    send_text(stuck, "GET /a HT");
    server.turn();
    for (int i = 0; i < 100 && server.server.connections() > 1; ++i)
        server.loop->run_once(100);
    CHECK(server.server.connections() == 1);
    CHECK(is_closed(stuck));
    send_text(waiting, "GET /a HTTP/1.1\r\n\r\n");
    server.turn();
    CHECK(receive(waiting).ends_with("<GET /a >"));
}

TEST_CASE("the eleventh client gets 503 until there is room") {
    Server server;
    std::vector<Fd> clients;
    for (std::size_t i = 0; i < HttpLimits().connections; ++i)
        clients.push_back(server.connect());
    const auto extra = server.connect();
    const auto text = receive(extra);
    CHECK(text.starts_with("HTTP/1.1 503 "));
    CHECK(contains(text, "Connection: close\r\n"));
    CHECK(contains(text, "{\"error\":"));
    CHECK(is_closed(extra));
    clients.pop_back();
    server.turn();
    const auto next = server.connect();
    send_text(next, "GET /a HTTP/1.1\r\n\r\n");
    server.turn();
    CHECK(receive(next).ends_with("<GET /a >"));
}

TEST_CASE("the socket file is private, refuses a live owner, replaces a stale one, and goes") {
    char folder[] = "/tmp/masu-api-XXXXXX";
    REQUIRE(::mkdtemp(folder) != nullptr);
    const std::string path = std::string(folder) + "/api.sock";
    auto loop = *EventLoop::create();
    {
        auto first = UnixListener::create(*loop, path, [](Fd) {});
        REQUIRE(first.has_value());
        struct stat status{};
        REQUIRE(::stat(path.c_str(), &status) == 0);
        CHECK((status.st_mode & 0777) == 0600);
        const auto second = UnixListener::create(*loop, path, [](Fd) {});
        REQUIRE_FALSE(second.has_value());
        CHECK(contains(second.error().message, path));
        // As after a kill: the file stays, nobody listens.
        REQUIRE(::rename(path.c_str(), (path + ".kept").c_str()) == 0);
    }
    REQUIRE(::rename((path + ".kept").c_str(), path.c_str()) == 0);
    CHECK(UnixListener::create(*loop, path, [](Fd) {}).has_value());
    CHECK(::access(path.c_str(), F_OK) < 0);

    CHECK_FALSE(UnixListener::create(*loop, folder, [](Fd) {}).has_value());
    CHECK_FALSE(UnixListener::create(*loop, std::string(108, 'a'), [](Fd) {}).has_value());
    ::rmdir(folder);
}

TEST_CASE("a reply may come later: the client's next request waits for it, and none is lost") {
    auto loop = *EventLoop::create();
    std::vector<std::pair<std::string, HttpAnswer>> asked;
    HttpServer server(
        *loop, HttpLimits(),
        DeferredHttpHandler([&](const HttpRequest& request, const HttpAnswer& answer) {
            asked.emplace_back(request.target, answer);
        }),
        Log());
    int pair[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
    server.serve(Fd(pair[0]));
    Fd client(pair[1]);
    const auto turn = [&] {
        for (int i = 0; i < 8; ++i)
            loop->run_once(0);
    };
    send_text(client, "GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n");
    ::shutdown(client.get(), SHUT_WR);
    turn();
    REQUIRE(asked.size() == 1);
    CHECK(receive(client).empty());
    const auto first = asked[0].second;
    first({200, "one"});
    first({200, "again"});  // the second time counts for nothing, not even for /b
    turn();
    REQUIRE(asked.size() == 2);
    CHECK(asked[1].first == "/b");
    CHECK(contains(receive(client), "one"));
    asked[1].second({200, "two"});
    const auto rest = receive(client);
    CHECK(contains(rest, "two"));
    CHECK_FALSE(contains(rest, "again"));
    turn();
    CHECK(server.connections() == 0);

    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
    server.serve(Fd(pair[0]));
    client.reset(pair[1]);
    send_text(client, "GET /c HTTP/1.1\r\n\r\n");
    turn();
    client.reset();
    turn();
    CHECK(server.connections() == 0);
    asked.back().second({200, "to nobody"});
}
