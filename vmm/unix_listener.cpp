// Listening Unix sockets.
#include "vmm/unix_listener.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace masu {
namespace {

Result<sockaddr_un> address_of(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.empty() || path.size() >= sizeof address.sun_path)
        return fail("socket path {} has {} bytes; a Unix socket takes 1 to {}: use a shorter one",
                    path, path.size(), sizeof address.sun_path - 1);
    std::memcpy(address.sun_path, path.data(), path.size());
    return address;
}

// The one place where the socket API's address type is pretended.
const sockaddr* generic(const sockaddr_un& address) {
    return static_cast<const sockaddr*>(static_cast<const void*>(&address));
}

Result<Fd> new_socket() {
    Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!socket)
        return fail_errno(errno, "cannot create a Unix socket");
    return socket;
}

// Removes what an ended process left behind at `path`.
Result<> clear_stale(const std::string& path, const sockaddr_un& address) {
    struct stat status{};
    if (::lstat(path.c_str(), &status) < 0)
        return {};
    if (!S_ISSOCK(status.st_mode))
        return fail("{} exists and is not a socket; remove it or use another path", path);
    const auto probe = TRY(new_socket());
    // EAGAIN: somebody listens and has a full backlog.
    if (::connect(probe.get(), generic(address), sizeof address) == 0 || errno != ECONNREFUSED)
        return fail("another process serves the socket {}; stop it or use another path", path);
    if (::unlink(path.c_str()) < 0)
        return fail_errno(errno, "cannot remove the stale socket {}", path);
    return {};
}

}  // namespace

Result<Fd> connect_unix_now(const std::string& path) {
    const auto address = TRY(address_of(path));
    auto socket = TRY(new_socket());
    if (::connect(socket.get(), generic(address), sizeof address) < 0)
        return fail_errno(errno, "cannot connect to the socket {}", path);
    return socket;
}

Result<std::unique_ptr<UnixListener>> UnixListener::create(EventLoop& loop, const std::string& path,
                                                           std::function<void(Fd)> accepted) {
    const auto address = TRY(address_of(path));
    TRY(clear_stale(path, address));
    auto socket = TRY(new_socket());
    // Set before bind(): at no moment is the file open to others.
    if (::fchmod(socket.get(), 0600) < 0)
        return fail_errno(errno, "cannot set the mode of socket {}", path);
    if (::bind(socket.get(), generic(address), sizeof address) < 0)
        return fail_errno(errno, "cannot bind the socket {}", path);
    std::unique_ptr<UnixListener> listener(
        new UnixListener(std::move(socket), path, std::move(accepted)));
    if (::listen(listener->socket_.get(), 64) < 0)
        return fail_errno(errno, "cannot listen on the socket {}", path);
    auto* self = listener.get();
    self->watch_ = TRY(loop.watch(self->socket_.get(), EPOLLIN,
                                  [self](std::uint32_t) { self->accept_waiting(); }));
    return listener;
}

UnixListener::UnixListener(Fd socket, std::string path, std::function<void(Fd)> accepted)
    : socket_(std::move(socket)), path_(std::move(path)), accepted_(std::move(accepted)) {
    struct stat status{};
    if (::lstat(path_.c_str(), &status) == 0) {
        device_ = status.st_dev;
        inode_ = status.st_ino;
    }
}

UnixListener::~UnixListener() {
    struct stat status{};
    if (::lstat(path_.c_str(), &status) == 0 && status.st_dev == device_ && status.st_ino == inode_)
        ::unlink(path_.c_str());
}

// A bounded number a round, so that a storm of connections leaves the loop to others.
void UnixListener::accept_waiting() {
    for (int i = 0; i < 16; ++i) {
        Fd client(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
        if (!client)
            return;
        accepted_(std::move(client));
    }
}

}  // namespace masu
