// Fan-out of serial output, and the way back.
#include "vmm/console.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace masu {
namespace {

constexpr Nanoseconds first_retry = 2'000'000;
constexpr Nanoseconds last_retry = 200'000'000;

}  // namespace

// One place that output goes to and input may come from. Input and output have a descriptor each
// (for a socket, two of the same), so that each has its own watch.
class Console::Reader {
  public:
    enum class Kind {
        Client,    // a socket; cut off when it does not read
        Terminal,  // pollable; loses output when it does not read
        File       // a regular file, which is written at once
    };

    Reader(Console& console, Kind kind, Fd input, Fd output)
        : console_(console), kind_(kind), input_(std::move(input)), output_(std::move(output)) {}

    Result<> watch() {
        auto& loop = console_.loop_;
        if (input_) {
            auto watch = loop.watch(input_.get(), EPOLLIN, [this](auto) { on_input(); });
            // A regular file or /dev/null cannot be waited for: nobody types there.
            if (watch)
                input_watch_ = *std::move(watch);
            else if (watch.error().os_errno != EPERM)
                return std::unexpected(watch.error());
        }
        if (kind_ != Kind::File)
            output_watch_ = TRY(
                loop.watch(output_.get(), 0, [this](std::uint32_t events) { on_output(events); }));
        return {};
    }

    // False when the reader is to be detached.
    [[nodiscard]] bool write(std::string_view bytes) {
        if (pending_.size() + bytes.size() > client_limit) {
            if (kind_ == Kind::Client) {
                console_.log_.warn("console client cut off: it does not read");
                return false;
            }
            return true;
        }
        pending_ += bytes;
        return send();
    }

    [[nodiscard]] bool send() {
        while (!pending_.empty()) {
            const auto count = kind_ == Kind::Client || is_socket_
                                   ? ::send(output_.get(), pending_.data(), pending_.size(),
                                            MSG_DONTWAIT | MSG_NOSIGNAL)
                                   : ::write(output_.get(), pending_.data(), pending_.size());
            if (count < 0 && errno == EINTR)
                continue;
            if (count < 0 && errno != EAGAIN)
                return false;
            if (count <= 0)
                break;
            pending_.erase(0, static_cast<std::size_t>(count));
        }
        output_watch_.set_events(pending_.empty() ? 0U : EPOLLOUT);
        return true;
    }

    void let_type(bool allowed) { input_watch_.set_events(allowed ? EPOLLIN : 0U); }
    void use_send() { is_socket_ = true; }

    [[nodiscard]] bool has_pending() const { return !pending_.empty(); }
    [[nodiscard]] int output_fd() const { return output_.get(); }
    [[nodiscard]] Kind kind() const { return kind_; }
    // For descriptors that are not ours to close.
    void disown() { std::ignore = input_.release(); }

  private:
    void on_input() {
        std::array<std::byte, 1024> buffer;
        const auto count = ::read(input_.get(), buffer.data(), buffer.size());
        if (count > 0)
            console_.accept_input(std::span(buffer).first(static_cast<std::size_t>(count)));
        // The end of input is not the end of interest: output goes on until the other side hangs
        // up.
        else if (count == 0 || (errno != EAGAIN && errno != EINTR))
            input_watch_ = EventLoop::Watch();
    }

    void on_output(std::uint32_t events) {
        if ((events & (EPOLLERR | EPOLLHUP)) != 0 || !send())
            console_.detach(*this);
    }

    Console& console_;
    const Kind kind_;
    bool is_socket_ = false;
    Fd input_;
    Fd output_;
    std::string pending_;
    EventLoop::Watch input_watch_;
    EventLoop::Watch output_watch_;
};

Console::Console(EventLoop& loop, Log log) : loop_(loop), log_(log.with_component("console")) {}

Result<std::unique_ptr<Console>> Console::create(EventLoop& loop, Log log) {
    std::unique_ptr<Console> console(new Console(loop, std::move(log)));
    auto* self = console.get();
    self->retry_.emplace(TRY(loop.timer([self] { self->pump_input(); })));
    return console;
}

Console::~Console() {
    for (const auto& reader : readers_)
        if (reader->kind() != Reader::Kind::Client)
            reader->disown();
}

Result<> Console::open_log(const std::string& path) {
    log_file_.emplace(TRY(ConsoleLog::open(path, log_)));
    return {};
}

Result<> Console::listen(const std::string& path) {
    listener_ =
        TRY(UnixListener::create(loop_, path, [this](Fd client) { attach(std::move(client)); }));
    return {};
}

void Console::attach(Fd socket) {
    if (readers_.size() >= max_clients)
        return;
    auto output = socket.duplicate();
    if (!output)
        return;
    auto reader = std::make_unique<Reader>(*this, Reader::Kind::Client, std::move(socket),
                                           *std::move(output));
    const std::string_view all(replay_);
    const auto last = all.substr(all.size() - std::min(all.size(), replay_size));
    if (!reader->watch() || !reader->write(last))
        return;
    reader->let_type(typed_.size() < input_limit);
    readers_.push_back(std::move(reader));
}

Result<> Console::attach_stdio(int input, int output) {
    struct stat status{};
    if (::fstat(output, &status) < 0)
        return fail_errno(errno, "standard output cannot be used as console");
    const auto kind = S_ISREG(status.st_mode) ? Reader::Kind::File : Reader::Kind::Terminal;
    // Opened anew, the pipe or terminal is non-blocking for us alone. A socket cannot be opened so;
    // it has a flag per call instead.
    Fd own;
    if (kind == Reader::Kind::Terminal && !S_ISSOCK(status.st_mode))
        own.reset(::open(fmt::format("/proc/self/fd/{}", output).c_str(),
                         O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
    if (!own)
        own.reset(::fcntl(output, F_DUPFD_CLOEXEC, 0));
    if (!own)
        return fail_errno(errno, "standard output cannot be used as console");
    auto reader = std::make_unique<Reader>(*this, kind, Fd(input), std::move(own));
    if (S_ISSOCK(status.st_mode))
        reader->use_send();
    if (auto watched = reader->watch(); !watched) {
        reader->disown();
        // /dev/null takes everything and is never waited for.
        return watched.error().os_errno == EPERM ? Result<>() : watched;
    }
    readers_.push_back(std::move(reader));
    return {};
}

void Console::output(std::span<const std::byte> bytes) {
    if (bytes.empty())
        return;
    remember(bytes);
    if (log_file_)
        log_file_->write(bytes);
    const std::string text = [&] {
        std::string copy(bytes.size(), '\0');
        std::memcpy(copy.data(), bytes.data(), bytes.size());
        return copy;
    }();
    std::vector<Reader*> gone;
    for (const auto& reader : readers_)
        if (!reader->write(text))
            gone.push_back(reader.get());
    for (auto* reader : gone)
        detach(*reader);
}

void Console::remember(std::span<const std::byte> bytes) {
    const auto tail = bytes.last(std::min(bytes.size(), replay_size));
    const auto old = replay_.size();
    replay_.resize(old + tail.size());
    std::memcpy(replay_.data() + old, tail.data(), tail.size());
    if (replay_.size() > 2 * replay_size)
        replay_.erase(0, replay_.size() - replay_size);
}

void Console::set_input(Input input) {
    input_ = std::move(input);
    retry_after_ = 0;
    pump_input();
}

void Console::accept_input(std::span<const std::byte> bytes) {
    const auto old = typed_.size();
    typed_.resize(old + bytes.size());
    std::memcpy(typed_.data() + old, bytes.data(), bytes.size());
    pump_input();
}

// Gives the guest what it takes; the rest is tried again a little later, then ever more seldom
// while the guest takes nothing.
void Console::pump_input() {
    if (input_ && !typed_.empty()) {
        const auto taken = std::min(input_(std::as_bytes(std::span(typed_))), typed_.size());
        typed_.erase(0, taken);
        retry_after_ =
            taken > 0 || retry_after_ == 0 ? first_retry : std::min(retry_after_ * 2, last_retry);
        if (!typed_.empty())
            retry_->arm(retry_after_);
    }
    for (const auto& reader : readers_)
        reader->let_type(typed_.size() < input_limit);
}

void Console::detach(Reader& reader) {
    if (reader.kind() != Reader::Kind::Client)
        reader.disown();
    std::erase_if(readers_, [&](const auto& other) { return other.get() == &reader; });
}

void Console::flush(int milliseconds) {
    const SystemClock clock;
    const auto deadline = clock.now() + static_cast<Nanoseconds>(milliseconds) * 1'000'000;
    for (;;) {
        std::vector<pollfd> waiting;
        std::vector<Reader*> gone;
        for (const auto& reader : readers_) {
            if (!reader->has_pending())
                continue;
            if (!reader->send())
                gone.push_back(reader.get());
            else if (reader->has_pending())
                waiting.push_back({.fd = reader->output_fd(), .events = POLLOUT, .revents = 0});
        }
        for (auto* reader : gone)
            detach(*reader);
        const auto now = clock.now();
        if (waiting.empty() || now >= deadline)
            return;
        ::poll(waiting.data(), waiting.size(), static_cast<int>((deadline - now) / 1'000'000) + 1);
    }
}

}  // namespace masu
