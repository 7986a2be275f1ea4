// Netlink's framing (RFC 3549): messages to the kernel, acknowledgements and dumps from it.
#include "tools/masu/rtnetlink.hpp"

#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <string_view>

namespace masu::cli {
namespace {

// More than a dump's datagrams have; the kernel makes them no larger.
constexpr std::size_t receive_size = 64 * std::size_t{1024};
constexpr std::size_t alignment = 4;

constexpr std::size_t padded(std::size_t size) {
    return (size + alignment - 1) / alignment * alignment;
}

Result<Fd> open_socket(std::uint32_t groups, int flags) {
    Fd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | flags, NETLINK_ROUTE));
    sockaddr_nl address{};
    address.nl_family = AF_NETLINK;
    address.nl_groups = groups;
    if (!fd || ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address),  // NOLINT
                      sizeof address) < 0)
        return fail_errno(errno, "cannot talk to the kernel about network interfaces");
    return fd;
}

// The first T of `bytes`, if they hold one.
template <class T>
std::optional<T> first(std::span<const std::byte> bytes) {
    if (bytes.size() < sizeof(T))
        return std::nullopt;
    T value;
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
}

// Takes the next message, or attribute, off `rest`; its header says the length. Nothing at the end.
template <class Header>
std::optional<std::span<const std::byte>> take(std::span<const std::byte>& rest,
                                               std::size_t length) {
    if (length < sizeof(Header) || length > rest.size())
        return std::nullopt;
    const auto whole = rest.first(length);
    rest = rest.subspan(std::min(rest.size(), padded(length)));
    return whole;
}

Link read_link(std::span<const std::byte> message) {
    Link link;
    auto rest = message.subspan(sizeof(nlmsghdr));
    const auto info = first<ifinfomsg>(rest);
    if (!info)
        return link;
    link.index = info->ifi_index;
    rest = rest.subspan(padded(sizeof *info));
    while (const auto header = first<rtattr>(rest)) {
        const auto attribute = take<rtattr>(rest, header->rta_len);
        if (!attribute)
            break;
        const auto value = attribute->subspan(sizeof(rtattr));
        if (header->rta_type == IFLA_IFNAME) {
            const auto* text = reinterpret_cast<const char*>(value.data());  // NOLINT: chars
            link.name.assign(text, ::strnlen(text, value.size()));
        } else if (header->rta_type == IFLA_STATS64) {
            rtnl_link_stats64 stats{};
            std::memcpy(&stats, value.data(), std::min(value.size(), sizeof stats));
            link.counters = {.received_packets = stats.rx_packets,
                             .received_bytes = stats.rx_bytes,
                             .received_dropped = stats.rx_dropped,
                             .sent_packets = stats.tx_packets,
                             .sent_bytes = stats.tx_bytes,
                             .sent_dropped = stats.tx_dropped};
        }
    }
    return link;
}

int error_of(std::span<const std::byte> message) {
    const auto error = first<nlmsgerr>(message.subspan(sizeof(nlmsghdr)));
    return error ? -error->error : EBADMSG;
}

}  // namespace

NetlinkMessage::NetlinkMessage(std::uint16_t type, std::uint16_t flags) {
    nlmsghdr header{};
    header.nlmsg_type = type;
    header.nlmsg_flags = flags;
    fixed(header);
}

void NetlinkMessage::append(std::span<const std::byte> bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    bytes_.resize(padded(bytes_.size()));
}

NetlinkMessage& NetlinkMessage::bytes(std::uint16_t attribute, std::span<const std::byte> value) {
    rtattr header{};
    header.rta_type = attribute;
    header.rta_len = static_cast<std::uint16_t>(sizeof header + value.size());
    fixed(header);
    append(value);
    return *this;
}

NetlinkMessage& NetlinkMessage::text(std::uint16_t attribute, const std::string& text) {
    return bytes(attribute, std::as_bytes(std::span(text.c_str(), text.size() + 1)));
}

NetlinkMessage& NetlinkMessage::begin(std::uint16_t attribute) {
    open_.push_back(bytes_.size());
    return bytes(attribute, {});
}

NetlinkMessage& NetlinkMessage::end() {
    const auto at = open_.back();
    open_.pop_back();
    const auto length = static_cast<std::uint16_t>(bytes_.size() - at);
    std::memcpy(&bytes_[at + offsetof(rtattr, rta_len)], &length, sizeof length);
    return *this;
}

Result<RtNetlink> RtNetlink::open() {
    RtNetlink netlink(TRY(open_socket(0, 0)));
    netlink.buffer_.resize(receive_size);
    return netlink;
}

Result<> RtNetlink::send(NetlinkMessage& message, std::string_view what) {
    auto header = *first<nlmsghdr>(message.bytes_);
    header.nlmsg_len = static_cast<std::uint32_t>(message.bytes_.size());
    header.nlmsg_seq = ++sequence_;
    std::memcpy(message.bytes_.data(), &header, sizeof header);
    if (::send(socket_.get(), message.bytes_.data(), message.bytes_.size(), 0) < 0)
        return fail_errno(errno, "cannot {}", what);
    return {};
}

Result<std::span<const std::byte>> RtNetlink::receive(std::string_view what) {
    for (;;) {
        const auto size = ::recv(socket_.get(), buffer_.data(), buffer_.size(), 0);
        if (size > 0)
            return std::span<const std::byte>(buffer_).first(static_cast<std::size_t>(size));
        if (size == 0 || errno != EINTR)
            return fail_errno(size == 0 ? EPIPE : errno, "cannot {}", what);
    }
}

Result<> RtNetlink::request(NetlinkMessage message, std::string_view what) {
    TRY(send(message, what));
    for (;;) {
        auto rest = TRY(receive(what));
        while (const auto header = first<nlmsghdr>(rest)) {
            const auto answer = take<nlmsghdr>(rest, header->nlmsg_len);
            if (!answer)
                break;
            if (header->nlmsg_type != NLMSG_ERROR || header->nlmsg_seq != sequence_)
                continue;
            if (const int error = error_of(*answer); error != 0)
                return fail_errno(error, "cannot {}", what);
            return {};
        }
    }
}

Result<std::vector<Link>> RtNetlink::links() {
    constexpr std::string_view what = "list the network interfaces";
    NetlinkMessage message(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP);
    message.fixed(ifinfomsg{});
    TRY(send(message, what));
    std::vector<Link> found;
    for (;;) {
        auto rest = TRY(receive(what));
        while (const auto header = first<nlmsghdr>(rest)) {
            const auto answer = take<nlmsghdr>(rest, header->nlmsg_len);
            if (!answer)
                break;
            if (header->nlmsg_seq != sequence_)
                continue;
            if (header->nlmsg_type == NLMSG_DONE)
                return found;
            if (header->nlmsg_type == NLMSG_ERROR)
                return fail_errno(error_of(*answer), "cannot {}", what);
            if (header->nlmsg_type == RTM_NEWLINK)
                found.push_back(read_link(*answer));
        }
    }
}

Result<Fd> watch_links() {
    return open_socket(RTMGRP_LINK, SOCK_NONBLOCK);
}

// What was lost (ENOBUFS) does not matter: whoever is woken looks at all links.
void drain_link_events(const Fd& socket) noexcept {
    char ignored[64];
    constexpr int most = 4096;
    for (int i = 0; i < most; ++i)
        if (::recv(socket.get(), ignored, sizeof ignored, MSG_TRUNC) < 0 && errno != ENOBUFS &&
            errno != EINTR)
            return;
}

}  // namespace masu::cli
