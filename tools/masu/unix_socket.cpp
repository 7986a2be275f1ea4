// connect() on a path.
#include "tools/masu/unix_socket.hpp"

#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>

namespace masu::cli {

Result<Fd> connect_unix(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path)
        return fail(
            "the socket path {} is longer than {} bytes; set MASU_RUNTIME_DIR to a "
            "shorter folder",
            path, sizeof address.sun_path - 1);
    std::memcpy(address.sun_path, path.data(), path.size());
    Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!fd)
        return fail_errno(errno, "cannot make a socket");
    // NOLINTNEXTLINE: the sockets API takes every address as sockaddr
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0)
        return fail_errno(errno, "cannot connect to {}", path);
    return fd;
}

}  // namespace masu::cli
