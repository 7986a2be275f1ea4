// The console with readers that read, that do not, and that come and go.
#include "vmm/console.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

#include "base/atomic_file.hpp"

using namespace masu;

namespace {

struct Folder {
    char path[28] = "/tmp/masu-console-XXXXXX";
    Folder() { REQUIRE(::mkdtemp(path) != nullptr); }
    ~Folder() {
        for (const char* name : {"log", "log.1", "socket", "fifo"})
            ::unlink(file(name).c_str());
        ::rmdir(path);
    }
    [[nodiscard]] std::string file(const char* name) const {
        return std::string(path) + "/" + name;
    }
};

struct Bench {
    std::unique_ptr<EventLoop> loop = *EventLoop::create();
    std::unique_ptr<Console> console = *Console::create(*loop, Log());

    Fd attach() {
        int pair[2];
        REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
        console->attach(Fd(pair[0]));
        return Fd(pair[1]);
    }
    void output(std::string_view text) { console->output(std::as_bytes(std::span(text))); }
    void turn() {
        for (int i = 0; i < 8; ++i)
            loop->run_once(0);
    }
};

std::string receive(const Fd& fd) {
    std::string text;
    char buffer[16 * 1024];
    for (;;) {
        const auto count = ::read(fd.get(), buffer, sizeof buffer);
        if (count <= 0)
            return text;
        text.append(buffer, static_cast<std::size_t>(count));
    }
}

void type(const Fd& fd, std::string_view text) {
    REQUIRE(::write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()));
}

}  // namespace

TEST_CASE("every client sees the past, then the present") {
    Bench bench;
    bench.output("past\n");
    const auto first = bench.attach();
    bench.output("between\n");
    const auto second = bench.attach();
    bench.output("present\n");
    CHECK(receive(first) == "past\nbetween\npresent\n");
    CHECK(receive(second) == "past\nbetween\npresent\n");
}

TEST_CASE("the replay is the last 64 KiB") {
    Bench bench;
    std::string all;
    for (int i = 0; i < 30'000; ++i) {
        const auto line = fmt::format("line {}\n", i);
        all += line;
        bench.output(line);
    }
    const auto client = bench.attach();
    std::string seen;
    for (int i = 0; i < 100 && seen.size() < Console::replay_size; ++i) {
        seen += receive(client);
        bench.turn();
    }
    CHECK(seen == all.substr(all.size() - Console::replay_size));
}

TEST_CASE("a client that never reads is cut off, the others lose nothing") {
    Bench bench;
    const auto deaf = bench.attach();
    const auto reader = bench.attach();
    const std::string block(32 * 1024, 'x');
    std::size_t received = 0;
    constexpr int blocks = 80;
    for (int i = 0; i < blocks; ++i) {
        bench.output(block);
        bench.turn();
        received += receive(reader).size();
    }
    bench.turn();
    received += receive(reader).size();
    CHECK(received == blocks * block.size());
    CHECK(bench.console->clients() == 1);
}

TEST_CASE("a client that hangs up is forgotten, one that only stops typing is not") {
    Bench bench;
    auto gone = bench.attach();
    const auto listener = bench.attach();
    gone.reset();
    ::shutdown(listener.get(), SHUT_WR);
    bench.turn();
    CHECK(bench.console->clients() == 1);
    bench.output("still here");
    CHECK(receive(listener) == "still here");
}

TEST_CASE("input of all clients reaches the guest, in the portions it takes") {
    Bench bench;
    const auto first = bench.attach();
    const auto second = bench.attach();
    type(first, "early ");
    bench.turn();
    std::string guest;
    std::size_t room = 4;
    bench.console->set_input([&](std::span<const std::byte> bytes) {
        const auto taken = std::min(bytes.size(), room);
        const auto old = guest.size();
        guest.resize(old + taken);
        std::memcpy(guest.data() + old, bytes.data(), taken);
        return taken;
    });
    type(second, "late");
    for (int i = 0; i < 100 && guest.size() < 10; ++i)
        bench.loop->run_once(100);
    CHECK(guest == "early late");
}

TEST_CASE("a guest that takes no input makes its typist wait, not the monitor grow") {
    Bench bench;
    const auto client = bench.attach();
    bool open = false;
    std::size_t taken = 0;
    bench.console->set_input([&](std::span<const std::byte> bytes) -> std::size_t {
        if (open)
            taken += bytes.size();
        return open ? bytes.size() : 0;
    });
    const std::string block(4096, 'k');
    std::size_t typed = 0;
    for (int i = 0; i < 1000; ++i) {
        const auto count = ::write(client.get(), block.data(), block.size());
        if (count <= 0)
            break;
        typed += static_cast<std::size_t>(count);
        bench.turn();
    }
    CHECK(typed < 4'000'000);  // the socket filled up: nobody takes from it any more
    open = true;
    for (int i = 0; i < 100'000 && taken < typed; ++i)
        bench.loop->run_once(100);
    CHECK(taken == typed);
}

TEST_CASE("a terminal that does not read loses output and nothing else") {
    Bench bench;
    int output[2];
    REQUIRE(::pipe2(output, O_CLOEXEC) == 0);
    const Fd read_end(output[0]);
    const Fd write_end(output[1]);
    int input[2];
    REQUIRE(::pipe2(input, O_CLOEXEC) == 0);
    const Fd keyboard(input[1]);
    const Fd keyboard_out(input[0]);
    REQUIRE(bench.console->attach_stdio(keyboard_out.get(), write_end.get()).has_value());
    // The pipe's own flags are as they were: it is shared with who gave it to us.
    CHECK((::fcntl(write_end.get(), F_GETFL) & O_NONBLOCK) == 0);
    std::string typed;
    bench.console->set_input([&](std::span<const std::byte> bytes) {
        typed.append(bytes.size(), '*');
        return bytes.size();
    });
    const std::string block(64 * 1024, 'o');
    for (int i = 0; i < 64; ++i)
        bench.output(block);  // would block for ever if it could
    type(keyboard, "key");
    bench.turn();
    CHECK(typed == "***");
    REQUIRE(::fcntl(read_end.get(), F_SETFL, O_NONBLOCK) == 0);
    std::size_t seen = 0;
    for (int i = 0; i < 100; ++i) {
        seen += receive(read_end).size();
        bench.turn();
    }
    CHECK(seen >= Console::client_limit);
    CHECK(seen < 64 * block.size());
    bench.output("back");
    CHECK(receive(read_end) == "back");
    bench.console.reset();
    CHECK(::fcntl(keyboard_out.get(), F_GETFD) >= 0);  // not ours to close
    CHECK(::fcntl(write_end.get(), F_GETFD) >= 0);
}

TEST_CASE("output to a plain file and to /dev/null, input from /dev/null") {
    const Folder folder;
    const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    const Fd file(::open(folder.file("log").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    Bench bench;
    REQUIRE(bench.console->attach_stdio(null.get(), file.get()).has_value());
    bench.output("text");
    CHECK(*read_file(folder.file("log"), 100) == "text");
    Bench quiet;
    CHECK(quiet.console->attach_stdio(null.get(), null.get()).has_value());
    quiet.output("text");
}

TEST_CASE("the log keeps everything, and rotates at its limit") {
    const Folder folder;
    auto log = *ConsoleLog::open(folder.file("log"), Log(), 100);
    const std::string line(40, 'l');
    for (int i = 0; i < 7; ++i)
        log.write(std::as_bytes(std::span(line)));
    CHECK(read_file(folder.file("log.1"), 1000)->size() == 120);
    CHECK(read_file(folder.file("log"), 1000)->size() == 40);
    // A monitor that comes later appends.
    log = *ConsoleLog::open(folder.file("log"), Log(), 100);
    log.write(std::as_bytes(std::span(line)));
    CHECK(read_file(folder.file("log"), 1000)->size() == 80);
}

TEST_CASE("a FIFO nobody reads does not stop the console") {
    const Folder folder;
    REQUIRE(::mkfifo(folder.file("fifo").c_str(), 0600) == 0);
    Bench bench;
    REQUIRE(bench.console->open_log(folder.file("fifo")).has_value());
    bench.output(std::string(1 << 20, 'x'));
    CHECK_FALSE(bench.console->open_log(folder.file("no/such/place")).has_value());
}

TEST_CASE("clients connect through the socket file") {
    const Folder folder;
    Bench bench;
    REQUIRE(bench.console->listen(folder.file("socket")).has_value());
    bench.output("hello");
    const Fd client(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, folder.file("socket").c_str(), sizeof address.sun_path - 1);
    const void* generic = &address;
    REQUIRE(::connect(client.get(), static_cast<const sockaddr*>(generic), sizeof address) == 0);
    bench.turn();
    CHECK(receive(client) == "hello");
}

TEST_CASE("flush waits for a slow reader, but not for ever") {
    Bench bench;
    const auto client = bench.attach();
    bench.output(std::string(900'000, 'x'));
    const SystemClock clock;
    const auto start = clock.now();
    bench.console->flush(20);
    CHECK(clock.now() - start >= 20'000'000);
    CHECK(bench.console->clients() == 1);
}
