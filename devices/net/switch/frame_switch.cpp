// Sockets, buffers and turns of the switch.
#include "devices/net/switch/frame_switch.hpp"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "devices/net/firewall/wire.hpp"

namespace masu::net {
namespace {

constexpr std::size_t length_size = 4;
constexpr std::size_t incoming_size = 128 * 1024;
static_assert(incoming_size >= length_size + max_frame_size);
static_assert(FrameSwitch::queue_size >= length_size + max_frame_size);

}  // namespace

Result<> FrameSwitch::add(Fd socket, std::string name, const PortAddresses& addresses) {
    if (::fcntl(socket.get(), F_SETFL, O_NONBLOCK) < 0 ||
        ::fcntl(socket.get(), F_SETFD, FD_CLOEXEC) < 0)
        return fail_errno(errno, "cannot set up the socket of {}", name);
    const auto id = next_id_++;
    TRY(table_.add(id, addresses));
    auto link = std::make_unique<Link>();
    link->port = {.name = std::move(name), .addresses = addresses, .counters = {}};
    link->socket = std::move(socket);
    link->incoming = std::make_unique_for_overwrite<std::byte[]>(incoming_size);
    link->outgoing = std::make_unique_for_overwrite<std::byte[]>(queue_size);
    auto watch = loop_.watch(link->socket.get(), EPOLLIN,
                             [this, id](std::uint32_t events) { handle(id, events); });
    if (!watch) {
        table_.remove(id);
        return std::unexpected(watch.error());
    }
    link->watch = *std::move(watch);
    links_.emplace(id, std::move(link));
    return {};
}

std::vector<FrameSwitch::Port> FrameSwitch::ports() const {
    std::vector<Port> ports;
    for (const auto& [id, link] : links_)
        ports.push_back(link->port);
    return ports;
}

void FrameSwitch::handle(PortId id, std::uint32_t events) {
    const auto found = links_.find(id);
    if (found == links_.end())
        return;
    auto& link = *found->second;
    if ((events & EPOLLOUT) != 0)
        flush(link);
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0)
        return;
    const bool goes_on = read(id, link);
    flush_touched();
    if (goes_on)
        return;
    table_.remove(id);
    const auto gone = std::move(found->second);
    links_.erase(found);
    left_(gone->port);
}

bool FrameSwitch::read(PortId id, Link& link) {
    const auto got = ::recv(link.socket.get(), &link.incoming[link.incoming_end],
                            incoming_size - link.incoming_end, MSG_DONTWAIT);
    if (got <= 0)
        return got < 0 && (errno == EAGAIN || errno == EINTR);
    link.incoming_end += static_cast<std::size_t>(got);
    std::span<const std::byte> bytes(link.incoming.get(), link.incoming_end);
    while (bytes.size() >= length_size) {
        const std::size_t length = get32(bytes.data());
        // A length that no frame has: the stream has lost its step, and never finds it again.
        if (length < ethernet_header_size || length > max_frame_size)
            return false;
        if (bytes.size() < length_size + length)
            break;
        forward(id, link, bytes.subspan(length_size, length));
        bytes = bytes.subspan(length_size + length);
    }
    if (!bytes.empty() && bytes.data() != link.incoming.get())
        std::memmove(link.incoming.get(), bytes.data(), bytes.size());
    link.incoming_end = bytes.size();
    return true;
}

void FrameSwitch::forward(PortId from, Link& link, std::span<const std::byte> frame) {
    ++link.port.counters.received_frames;
    link.port.counters.received_bytes += frame.size();
    const auto route = table_.route(from, frame);
    if (route.drop != SwitchDrop::None) {
        ++link.port.counters.dropped[static_cast<std::size_t>(route.drop)];
        return;
    }
    auto& to = *links_.at(route.to);
    bool has_room = queue(to, frame);
    if (!has_room) {
        flush(to);
        has_room = queue(to, frame);
    }
    if (!has_room) {
        ++to.port.counters.dropped[static_cast<std::size_t>(SwitchDrop::Slow)];
        return;
    }
    ++to.port.counters.sent_frames;
    to.port.counters.sent_bytes += frame.size();
    if (!to.touched) {
        to.touched = true;
        touched_.push_back(&to);
    }
}

bool FrameSwitch::queue(Link& link, std::span<const std::byte> frame) {
    const auto need = length_size + frame.size();
    const auto waiting = link.outgoing_end - link.outgoing_begin;
    if (waiting + need > queue_size)
        return false;
    if (link.outgoing_end + need > queue_size) {
        std::memmove(link.outgoing.get(), &link.outgoing[link.outgoing_begin], waiting);
        link.outgoing_begin = 0;
        link.outgoing_end = waiting;
    }
    auto* at = &link.outgoing[link.outgoing_end];
    put32(at, static_cast<std::uint32_t>(frame.size()));
    std::memcpy(at + length_size, frame.data(), frame.size());
    link.outgoing_end += need;
    return true;
}

void FrameSwitch::flush(Link& link) {
    const auto waiting = link.outgoing_end - link.outgoing_begin;
    const auto sent = waiting == 0 ? 0
                                   : ::send(link.socket.get(), &link.outgoing[link.outgoing_begin],
                                            waiting, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent > 0)
        link.outgoing_begin += static_cast<std::size_t>(sent);
    // Of another end that is gone, reading tells; what waits for it goes nowhere.
    if (sent < 0 && errno != EAGAIN && errno != EINTR)
        link.outgoing_begin = link.outgoing_end;
    if (link.outgoing_begin == link.outgoing_end)
        link.outgoing_begin = link.outgoing_end = 0;
    const bool wait = link.outgoing_end != 0;
    if (wait != link.waits_for_room)
        link.watch.set_events(wait ? EPOLLIN | EPOLLOUT : EPOLLIN);
    link.waits_for_room = wait;
}

// One system call a receiver and turn, whatever the number of frames.
void FrameSwitch::flush_touched() {
    for (auto* link : touched_) {
        link->touched = false;
        flush(*link);
    }
    touched_.clear();
}

}  // namespace masu::net
