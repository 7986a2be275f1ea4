// A listening Unix stream socket at a path: made with care for what is there already, and removed
// at the end.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include <sys/types.h>

#include "base/event_loop.hpp"
#include "base/fd.hpp"

namespace masu {

// A non-blocking socket, connected to who listens at `path` this moment.
[[nodiscard]] Result<Fd> connect_unix_now(const std::string& path);

// Loop thread.
class UnixListener {
  public:
    // Binds `path` with mode 0600. A socket nobody listens on any more is replaced; a live one, or
    // any other kind of file, is refused. `accepted` gets non-blocking, close-on-exec sockets.
    [[nodiscard]] static Result<std::unique_ptr<UnixListener>> create(
        EventLoop& loop, const std::string& path, std::function<void(Fd)> accepted);
    ~UnixListener();
    UnixListener(const UnixListener&) = delete;
    UnixListener& operator=(const UnixListener&) = delete;

  private:
    UnixListener(Fd socket, std::string path, std::function<void(Fd)> accepted);
    void accept_waiting();

    Fd socket_;
    std::string path_;
    dev_t device_ = 0;  // of the socket file, so that only our own is removed
    ino_t inode_ = 0;
    std::function<void(Fd)> accepted_;
    EventLoop::Watch watch_;
};

}  // namespace masu
