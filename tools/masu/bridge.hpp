// A Linux bridge between VMs, in a network namespace of its own, and a TAP interface for each.
//
// The namespace holds nothing else: no address, no route, no packet filter. So the host has no part
// in the network, and nobody else's bridge or packet filter (Docker's, for one) has a part in this
// one. It lives as long as this process or a monitor that has one of its TAPs open, and takes
// bridge and TAPs with it when it goes, however the last of them ended.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "tools/masu/rtnetlink.hpp"

namespace masu::cli {

class Bridge {
  public:
    // Moves the calling process, which has one thread, into a new network namespace: as root, or
    // else, where the host lets users have namespaces, into a user namespace as well.
    [[nodiscard]] static Result<Bridge> create(std::uint64_t mtu);
    // Whether create() would succeed, found out in another process.
    [[nodiscard]] static Result<> probe();

    struct Port {
        int index = 0;
        std::vector<Fd> queues;  // for the monitor; the TAP goes when the last is closed
    };
    // Frames to `mac` go to this port and to no other; only frames from `mac` come from it.
    [[nodiscard]] Result<Port> add_port(const net::MacAddress& mac, unsigned queues);

    [[nodiscard]] Result<std::vector<Link>> links() { return netlink_.links(); }

  private:
    Bridge(RtNetlink netlink, std::uint64_t mtu) : netlink_(std::move(netlink)), mtu_(mtu) {}
    [[nodiscard]] Result<> make();
    [[nodiscard]] Result<> set_up(int index, const net::MacAddress& mac);

    RtNetlink netlink_;
    std::uint64_t mtu_;
    int index_ = 0;
};

}  // namespace masu::cli
