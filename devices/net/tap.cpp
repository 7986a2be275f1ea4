// /dev/net/tun: TUNSETIFF and what goes with it.
#include "devices/net/tap.hpp"

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace masu::net {
namespace {

// Newer than Debian 12's kernel headers.
constexpr unsigned tun_f_uso4 = 0x20;
constexpr unsigned tun_f_uso6 = 0x40;

unsigned tun_flags(Offloads offloads) {
    unsigned flags = 0;
    const auto map = [&](Offloads bit, unsigned flag) {
        if ((offloads & bit) != 0)
            flags |= flag;
    };
    map(offload::csum, TUN_F_CSUM);
    map(offload::tso4, TUN_F_TSO4);
    map(offload::tso6, TUN_F_TSO6);
    map(offload::ecn, TUN_F_TSO_ECN);
    map(offload::ufo, TUN_F_UFO);
    map(offload::uso, tun_f_uso4 | tun_f_uso6);
    return flags;
}

bool set_offloads(int fd, Offloads offloads) {
    return ::ioctl(fd, TUNSETOFFLOAD, static_cast<unsigned long>(tun_flags(offloads))) == 0;
}

Result<Fd> open_tun() {
    Fd fd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK));
    if (!fd)
        return fail_errno(errno, "cannot open /dev/net/tun (is the tun module loaded?)");
    return fd;
}

Result<> set_header_size(const Fd& fd) {
    const int header_size = sizeof(NetHeader);
    if (::ioctl(fd.get(), TUNSETVNETHDRSZ, &header_size) < 0)
        return fail_errno(errno, "cannot set the header size of a TAP interface");
    return {};
}

Result<Fd> attach(const std::string& name, bool multi_queue) {
    auto fd = TRY(open_tun());
    ifreq request{};
    name.copy(request.ifr_name, IFNAMSIZ - 1);
    request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR |
                                           (multi_queue ? IFF_MULTI_QUEUE : 0));
    if (::ioctl(fd.get(), TUNSETIFF, &request) == 0)
        return fd;
    const int error = errno;
    if (error == EPERM)
        return fail(
            "cannot use TAP {}: it does not exist or belongs to another user; make it with "
            "`ip tuntap add {} mode tap user $USER`, as root",
            name, name);
    if (error == EBUSY)
        return fail("cannot use TAP {}: another program is attached to it", name);
    if (error == EINVAL)
        return fail(
            "cannot use {}: it exists and is no TAP interface of the kind asked for "
            "(IFF_TAP, {} queue)",
            name, multi_queue ? "multi" : "single");
    return fail_errno(error, "cannot use TAP {}", name);
}

}  // namespace

Tap::Tap(std::string name, std::vector<Fd> descriptors)
    : name_(std::move(name)),
      descriptors_(std::move(descriptors)),
      attached_(descriptors_.size(), true) {}

Result<std::unique_ptr<Tap>> Tap::open(const std::string& name) {
    if (name.empty() || name.size() >= IFNAMSIZ || name.contains('/') || name.contains('%'))
        return fail("'{}' is not the name of a network interface (1 to {} characters)",
                    name.substr(0, 64), IFNAMSIZ - 1);
    std::vector<Fd> descriptors;
    auto multi = attach(name, true);
    const bool can_grow = multi.has_value();
    // An interface made without multi_queue takes no such attachment, and the other way round.
    descriptors.push_back(can_grow ? *std::move(multi) : TRY(attach(name, false)));
    auto tap = TRY(prepare(name, std::move(descriptors)));
    tap->can_grow_ = can_grow;
    return tap;
}

Result<> Tap::add_queues(unsigned count) {
    while (can_grow_ && descriptors_.size() < count) {
        auto fd = TRY(attach(name_, true));
        TRY(set_header_size(fd));
        descriptors_.push_back(std::move(fd));
        attached_.push_back(true);
    }
    set_active_queues(1);
    return {};
}

Result<std::unique_ptr<Tap>> Tap::adopt(std::vector<Fd> descriptors) {
    std::string name;
    for (const auto& fd : descriptors) {
        ifreq request{};
        if (::ioctl(fd.get(), TUNGETIFF, &request) < 0 || (request.ifr_flags & IFF_TAP) == 0)
            return fail("descriptor {} is not attached to a TAP interface", fd.get());
        if ((request.ifr_flags & (IFF_NO_PI | IFF_VNET_HDR)) != (IFF_NO_PI | IFF_VNET_HDR))
            return fail("TAP descriptor {} must be made with IFF_NO_PI and IFF_VNET_HDR", fd.get());
        const std::string interface(request.ifr_name, ::strnlen(request.ifr_name, IFNAMSIZ));
        if (!name.empty() && name != interface)
            return fail("the descriptors belong to two TAP interfaces, {} and {}", name, interface);
        name = interface;
        if (::fcntl(fd.get(), F_SETFL, O_NONBLOCK) < 0 ||
            ::fcntl(fd.get(), F_SETFD, FD_CLOEXEC) < 0)
            return fail_errno(errno, "cannot set up TAP descriptor {}", fd.get());
    }
    if (descriptors.empty())
        return fail("no TAP descriptor is given");
    return prepare(std::move(name), std::move(descriptors));
}

Result<std::unique_ptr<Tap>> Tap::prepare(std::string name, std::vector<Fd> descriptors) {
    std::unique_ptr<Tap> tap(new Tap(std::move(name), std::move(descriptors)));
    for (const auto& fd : tap->descriptors_)
        TRY(set_header_size(fd));
    // What the kernel knows, by trying: all of it first, then without the newer kinds.
    for (const Offloads wanted : std::to_array<Offloads>(
             {offload::csum | offload::tso4 | offload::tso6 | offload::ecn | offload::ufo |
                  offload::uso,
              offload::csum | offload::tso4 | offload::tso6 | offload::ecn | offload::ufo,
              offload::csum | offload::tso4 | offload::tso6 | offload::ecn}))
        if (tap->offloads_ == 0 && set_offloads(tap->descriptors_[0].get(), wanted))
            tap->offloads_ = wanted;
    tap->set_receive_offloads(0);
    tap->set_active_queues(1);
    return tap;
}

void Tap::set_receive_offloads(Offloads wanted) noexcept {
    // A property of the interface, not of the queue.
    if (!set_offloads(descriptors_[0].get(), wanted & offloads_))
        set_offloads(descriptors_[0].get(), 0);
}

void Tap::set_active_queues(unsigned count) noexcept {
    for (std::size_t i = 1; i < descriptors_.size(); ++i) {
        const bool wanted = i < count;
        if (attached_[i] == wanted)
            continue;
        ifreq request{};
        request.ifr_flags = wanted ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE;
        if (::ioctl(descriptors_[i].get(), TUNSETQUEUE, &request) == 0)
            attached_[i] = wanted;
    }
}

Received Tap::receive(unsigned queue, std::span<std::byte> buffer) noexcept {
    const auto size = ::read(descriptors_[queue].get(), buffer.data(), buffer.size());
    if (size >= static_cast<ssize_t>(sizeof(NetHeader)))
        return {IoStatus::Done, static_cast<std::size_t>(size)};
    if (size >= 0)
        return {IoStatus::Dropped, 0};
    if (errno == EAGAIN || errno == EINTR)
        return {IoStatus::Again, 0};
    // EBADFD: the interface was deleted. EIO: it is down, and may come up again.
    return {errno == EBADFD ? IoStatus::Closed : IoStatus::Again, 0};
}

IoStatus Tap::send(unsigned queue, std::span<const iovec> packet) noexcept {
    const auto size =
        ::writev(descriptors_[queue].get(), packet.data(), static_cast<int>(packet.size()));
    if (size >= 0)
        return IoStatus::Done;
    if (errno == EBADFD)
        return IoStatus::Closed;
    // EAGAIN cannot be waited for without reordering what another queue sends; the interface's
    // send buffer is unlimited unless somebody set one. EIO: the interface is down.
    return IoStatus::Dropped;
}

}  // namespace masu::net
