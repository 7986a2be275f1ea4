// What carries a network's frames, as the network's process holds it: a switch of Masu's own, or a
// bridge of the host's kernel.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <boost/json/array.hpp>

#include "base/event_loop.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"
#include "tools/masu/network_record.hpp"

namespace masu::cli {

// Loop thread.
class NetworkDriver {
  public:
    // A VM has left the network; its port is gone.
    using Left = std::function<void(const std::string& vm, const net::MacAddress& mac)>;

    // The loop outlives the driver. Of a bridge, the process is in the bridge's namespace from then
    // on.
    [[nodiscard]] static Result<std::unique_ptr<NetworkDriver>> create(const NetworkRecord& network,
                                                                       EventLoop& loop, Left left);
    virtual ~NetworkDriver() = default;

    struct Joining {
        std::string vm;
        net::PortAddresses addresses;
        unsigned queues = 1;
        Fd socket;  // of a switch: the port's end of a connected stream
    };
    // What the monitor is handed beside its end of the stream: the TAP's queues, of a bridge. The
    // error has EADDRINUSE where a port that has not ended yet has one of the addresses.
    [[nodiscard]] virtual Result<std::vector<Fd>> join(Joining joining) = 0;
    [[nodiscard]] virtual std::size_t size() const noexcept = 0;
    // {"mac", "sent_frames", "sent_bytes", "received_frames", "received_bytes", "dropped": {}} of
    // each port, as its VM sees it.
    [[nodiscard]] virtual boost::json::array ports() = 0;
};

}  // namespace masu::cli
