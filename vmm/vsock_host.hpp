// The host's side of a VM's vsock: Unix sockets at paths, which outlive a reboot of the guest.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "base/event_loop.hpp"
#include "base/log.hpp"
#include "base/metrics.hpp"
#include "base/result.hpp"
#include "devices/vsock/virtio_vsock.hpp"
#include "vmm/config.hpp"
#include "vmm/unix_listener.hpp"

namespace masu {

// Programs connect to `uds_path` and say which port of the guest they want; the guest's connections
// to port P go to whoever listens at `uds_path`_P. Loop thread.
class VsockHost {
  public:
    // Binds uds_path, with mode 0600. The config has been checked.
    [[nodiscard]] static Result<std::unique_ptr<VsockHost>> open(const VsockConfig& config,
                                                                 EventLoop& loop);

    // The device for one boot; the one before is gone. Until release() it gets the programs that
    // connect; without one they are turned away.
    [[nodiscard]] Result<std::unique_ptr<vsock::VirtioVsock>> make_device(EventLoop& loop,
                                                                          const Log& log,
                                                                          Metrics& metrics,
                                                                          const Clock& clock);
    void release() noexcept { device_ = nullptr; }

  private:
    explicit VsockHost(VsockConfig config) : config_(std::move(config)) {}
    // To who serves this port on the host; none when nobody does.
    [[nodiscard]] Fd connect(std::uint32_t port) const;

    VsockConfig config_;
    vsock::VirtioVsock* device_ = nullptr;
    std::unique_ptr<UnixListener> listener_;
};

}  // namespace masu
