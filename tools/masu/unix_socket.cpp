// connect() and bind() on a path.
#include "tools/masu/unix_socket.hpp"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cstring>

namespace masu::cli {

namespace {

struct NewSocket {
    Fd fd;
    sockaddr_un address{};
    [[nodiscard]] const sockaddr* where() const {
        // NOLINTNEXTLINE: the sockets API takes every address as sockaddr
        return reinterpret_cast<const sockaddr*>(&address);
    }
};

Result<NewSocket> make_socket(const std::string& path) {
    NewSocket made;
    auto& address = made.address;
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path)
        return fail(
            "the socket path {} is longer than {} bytes; set MASU_RUNTIME_DIR to a "
            "shorter folder",
            path, sizeof address.sun_path - 1);
    std::memcpy(address.sun_path, path.data(), path.size());
    made.fd.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!made.fd)
        return fail_errno(errno, "cannot make a socket");
    return made;
}

}  // namespace

Result<Fd> connect_unix(const std::string& path) {
    auto made = TRY(make_socket(path));
    if (::connect(made.fd.get(), made.where(), sizeof made.address) < 0)
        return fail_errno(errno, "cannot connect to {}", path);
    return std::move(made.fd);
}

Result<Fd> listen_unix(const std::string& path) {
    auto made = TRY(make_socket(path));
    if (::bind(made.fd.get(), made.where(), sizeof made.address) < 0 ||
        ::chmod(path.c_str(), 0600) < 0 || ::listen(made.fd.get(), 1) < 0)
        return fail_errno(errno, "cannot make the socket {}", path);
    return std::move(made.fd);
}

}  // namespace masu::cli
