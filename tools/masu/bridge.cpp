// Namespaces, TUNSETIFF, and how ports of the bridge are kept silent.
#include "tools/masu/bridge.hpp"

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <tuple>

namespace masu::cli {
namespace {

constexpr const char* bridge_name = "masu";
constexpr std::uint64_t probe_mtu = 1500;

bool write_text(const char* path, const std::string& text) {
    const Fd file(::open(path, O_WRONLY | O_CLOEXEC));
    return file &&
           ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

// Everybody stays who they are; only so may a process without privileges fill in the maps.
Result<> enter_user_namespace() {
    const auto uid = ::geteuid();
    const auto gid = ::getegid();
    if (::unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
        return fail_errno(errno, "no namespace");
    if (!write_text("/proc/self/setgroups", "deny") ||
        !write_text("/proc/self/uid_map", fmt::format("{0} {0} 1", uid)) ||
        !write_text("/proc/self/gid_map", fmt::format("{0} {0} 1", gid)))
        return fail_errno(errno, "no map of users");
    return {};
}

Result<> enter_namespace() {
    if (::unshare(CLONE_NEWNET) == 0)
        return {};
    const int error = errno;
    if (error == EPERM && enter_user_namespace())
        return {};
    if (error == EPERM)
        return fail(
            "a bridge of the host's kernel needs root here, where users may have no namespaces; "
            "run masu as root, or make the network with --driver switch");
    return fail_errno(error, "cannot make a network namespace");
}

Result<Fd> open_tun() {
    Fd fd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK));
    if (!fd)
        return fail_errno(errno,
                          "cannot open /dev/net/tun (load the module tun, or run masu as root)");
    return fd;
}

// `name`: of the interface; "%d" in it is replaced by a free number.
Result<Fd> attach(std::string& name) {
    auto fd = TRY(open_tun());
    ifreq request{};
    name.copy(request.ifr_name, IFNAMSIZ - 1);
    request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE);
    if (::ioctl(fd.get(), TUNSETIFF, &request) < 0)
        return fail_errno(errno, "cannot make a TAP interface");
    name.assign(request.ifr_name, ::strnlen(request.ifr_name, IFNAMSIZ));
    return fd;
}

Result<int> index_of(RtNetlink& netlink, const std::string& name) {
    const auto links = TRY(netlink.links());
    const auto found = std::ranges::find(links, name, &Link::name);
    if (found == links.end())
        return fail("the network interface {} is gone", name);
    return found->index;
}

ifinfomsg link(int index, bool up = false, std::uint8_t family = AF_UNSPEC) {
    ifinfomsg info{};
    info.ifi_family = family;
    info.ifi_index = index;
    if (up)
        info.ifi_flags = info.ifi_change = IFF_UP;
    return info;
}

NetlinkMessage change_link() {
    return {RTM_SETLINK, NLM_F_REQUEST | NLM_F_ACK};
}

}  // namespace

Result<Bridge> Bridge::create(std::uint64_t mtu) {
    TRY(enter_namespace());
    // The host speaks no IPv6 in here: no address, no solicitation to a guest.
    for (const auto* path : {"/proc/sys/net/ipv6/conf/all/disable_ipv6",
                             "/proc/sys/net/ipv6/conf/default/disable_ipv6"})
        if (!write_text(path, "1") && errno != ENOENT)
            return fail_errno(errno, "cannot keep the host's IPv6 out of the network");
    Bridge bridge(TRY(RtNetlink::open()), mtu);
    TRY(bridge.make());
    return bridge;
}

Result<> Bridge::make() {
    NetlinkMessage made(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
    made.fixed(link(0)).text(IFLA_IFNAME, bridge_name);
    made.begin(IFLA_LINKINFO).text(IFLA_INFO_KIND, "bridge").begin(IFLA_INFO_DATA);
    // Solicitations of neighbours must reach everybody, with nobody there to ask for listeners.
    made.value(IFLA_BR_STP_STATE, std::uint32_t{0})
        .value(IFLA_BR_MCAST_SNOOPING, std::uint8_t{0})
        .end()
        .end();
    if (auto done = netlink_.request(std::move(made), "make a bridge"); !done)
        return done.error().os_errno == EOPNOTSUPP
                   ? fail(
                         "this kernel has no bridge (load the module bridge, as root), or make "
                         "the network with --driver switch")
                   : std::unexpected(done.error());
    index_ = TRY(index_of(netlink_, bridge_name));
    auto up = change_link();
    up.fixed(link(index_, true)).value(IFLA_MTU, static_cast<std::uint32_t>(mtu_));
    return netlink_.request(std::move(up), "set up a bridge");
}

Result<Bridge::Port> Bridge::add_port(const net::MacAddress& mac, unsigned queues) {
    Port port;
    std::string name = "vm%d";
    for (unsigned i = 0; i < queues; ++i)
        port.queues.push_back(TRY(attach(name)));
    port.index = TRY(index_of(netlink_, name));
    TRY(set_up(port.index, mac));
    return port;
}

Result<> Bridge::set_up(int index, const net::MacAddress& mac) {
    auto enslave = change_link();
    enslave.fixed(link(index))
        .value(IFLA_MTU, static_cast<std::uint32_t>(mtu_))
        .value(IFLA_MASTER, index_);
    TRY(netlink_.request(std::move(enslave), "add a port to a bridge"));

    // Nothing is learned: who is where is said below. What is for nobody goes nowhere. Broadcast
    // and multicast go to all, for ARP and neighbour discovery; each monitor's firewall judges
    // them.
    const auto silence = [&](bool locked) {
        auto flags = change_link();
        flags.fixed(link(index, false, AF_BRIDGE))
            .begin(IFLA_PROTINFO | NLA_F_NESTED)
            .value(IFLA_BRPORT_LEARNING, std::uint8_t{0})
            .value(IFLA_BRPORT_UNICAST_FLOOD, std::uint8_t{0})
            .value(IFLA_BRPORT_MCAST_FLOOD, std::uint8_t{1})
            .value(IFLA_BRPORT_BCAST_FLOOD, std::uint8_t{1});
        // Frames from any other MAC are dropped (Linux 5.18). The monitor drops them before.
        if (locked)
            flags.value(IFLA_BRPORT_LOCKED, std::uint8_t{1});
        flags.end();
        return netlink_.request(std::move(flags), "set up a bridge's port");
    };
    if (!silence(true))
        TRY(silence(false));

    NetlinkMessage entry(RTM_NEWNEIGH, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE);
    ndmsg place{};
    place.ndm_family = AF_BRIDGE;
    place.ndm_ifindex = index;
    place.ndm_state = NUD_NOARP;  // static
    place.ndm_flags = NTF_MASTER;
    entry.fixed(place).bytes(NDA_LLADDR, std::as_bytes(std::span(mac)));
    TRY(netlink_.request(std::move(entry), "add a MAC to a bridge"));

    auto up = change_link();
    up.fixed(link(index, true));
    return netlink_.request(std::move(up), "set up a bridge's port");
}

Result<> Bridge::probe() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) < 0)
        return fail_errno(errno, "cannot make a pipe");
    const Fd answer(ends[0]);
    Fd question(ends[1]);
    const auto child = ::fork();
    if (child < 0)
        return fail_errno(errno, "cannot start a process");
    if (child == 0) {
        const auto port = [&]() -> Result<> {
            auto bridge = TRY(create(probe_mtu));
            std::ignore = TRY(bridge.add_port({0x06, 0, 0, 0, 0, 1}, 1));
            return {};
        }();
        const auto text = port ? std::string() : port.error().message;
        [[maybe_unused]] const auto sent = ::write(question.get(), text.data(), text.size());
        ::_exit(port ? 0 : 1);
    }
    question.reset();
    std::string text(4096, '\0');
    const auto size = ::read(answer.get(), text.data(), text.size());
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (status == 0)
        return {};
    text.resize(size > 0 ? static_cast<std::size_t>(size) : 0);
    return fail("{}", text.empty() ? "the process that tried ended" : text);
}

}  // namespace masu::cli
