#include "vmm/vsock_host.hpp"

#include <sys/resource.h>

#include <algorithm>

namespace masu {
namespace {

// A guest must not use up the monitor's descriptors.
std::size_t connection_limit() {
    rlimit files{};
    if (::getrlimit(RLIMIT_NOFILE, &files) < 0)
        return vsock::VirtioVsock::max_connections;
    return std::min<rlim_t>(vsock::VirtioVsock::max_connections, files.rlim_cur / 2);
}

}  // namespace

Result<std::unique_ptr<VsockHost>> VsockHost::open(const VsockConfig& config, EventLoop& loop) {
    std::unique_ptr<VsockHost> host(new VsockHost(config));
    auto listener = UnixListener::create(loop, config.uds_path, [raw = host.get()](Fd client) {
        if (raw->device_ != nullptr)
            raw->device_->accept(std::move(client));
    });
    if (!listener)
        return in_context("vsock", std::move(listener).error());
    host->listener_ = *std::move(listener);
    return host;
}

Result<std::unique_ptr<vsock::VirtioVsock>> VsockHost::make_device(EventLoop& loop, const Log& log,
                                                                   Metrics& metrics,
                                                                   const Clock& clock) {
    auto device = TRY(
        vsock::VirtioVsock::create({.guest_cid = config_.guest_cid,
                                    .connect = [this](std::uint32_t port) { return connect(port); },
                                    .max_connections = connection_limit()},
                                   loop, log.with_component("vsock"), metrics, clock));
    device_ = device.get();
    return device;
}

Fd VsockHost::connect(std::uint32_t port) const {
    return connect_unix_now(fmt::format("{}_{}", config_.uds_path, port)).value_or(Fd());
}

}  // namespace masu
