// virtio-vsock: packets of the guest.
#include <algorithm>

#include "base/bytes.hpp"
#include "devices/vsock/virtio_vsock.hpp"

namespace masu::vsock {

// Stops while as many answers wait for the driver's buffers as may: who sends nonsense and takes no
// answer does not fill our memory.
void VirtioVsock::take_packets() {
    if (!running() || !tx_ || !tx_pending_)
        return;
    tx_->disable_notifications();
    for (int budget = packets_per_turn; budget > 0 && replies_.size() < max_replies; --budget) {
        auto popped = tx_->pop();
        if (!popped)
            return fault(virtio::to_string(popped.error()));
        if (!*popped) {
            if (tx_->enable_notifications())
                continue;
            tx_pending_ = false;
            break;
        }
        take_packet(**popped);
        tx_->complete(std::move(**popped), 0);
    }
    if (tx_->needs_interrupt())
        driver_->interrupt_queue(static_cast<std::uint16_t>(QueueIndex::Tx));
}

void VirtioVsock::take_packet(const virtio::Chain& chain) {
    Header packet;
    const auto size = chain.read(0, wire_bytes(packet));
    // The source CID is the guest's own (5.10.6.4); there is nobody to answer otherwise.
    if (size < header_size || packet.src_cid != options_.guest_cid) {
        counters_.malformed.add();
        log_.guest_fault("a vsock packet without a header of the guest's",
                         {kv("size", chain.readable_size())});
        return;
    }
    counters_.tx_packets.add();
    if (packet.dst_cid != host_cid || packet.type != type_stream)
        return refuse(packet);
    auto* connection = find({.guest = packet.src_port, .host = packet.dst_port});
    if (connection == nullptr)
        return packet.op == op::request ? open(packet) : refuse(packet);
    handle(*connection, packet, chain);
}

// RST, but never to one (5.10.6.4).
void VirtioVsock::refuse(const Header& packet) {
    if (packet.op == op::rst)
        return;
    replies_.push_back({.src_cid = packet.dst_cid,
                        .dst_cid = packet.src_cid,
                        .src_port = packet.dst_port,
                        .dst_port = packet.src_port,
                        .type = packet.type,
                        .op = op::rst});
}

void VirtioVsock::open(const Header& request) {
    if (connections_.size() >= options_.max_connections) {
        counters_.refused_full.add();
        return refuse(request);
    }
    Fd socket = options_.connect(request.dst_port);
    auto* connection = socket ? add(Connection::State::Open, std::move(socket)) : nullptr;
    if (connection == nullptr) {
        counters_.refused_host.add();
        return refuse(request);
    }
    connection->ports = {.guest = request.src_port, .host = request.dst_port};
    by_ports_.emplace(connection->ports, connection);
    connection->send_credit.update(request.buf_alloc, request.fwd_cnt);
    connection->owes_opening = connection->guest_asked = true;
    enqueue(*connection);
}

void VirtioVsock::violation(Connection& connection, std::string_view why) {
    counters_.violations.add();
    log_.guest_fault("a vsock connection was ended",
                     {kv("why", why), kv("guest_port", connection.ports.guest),
                      kv("host_port", connection.ports.host)});
    kill(connection);
}

void VirtioVsock::handle(Connection& connection, const Header& packet, const virtio::Chain& chain) {
    using enum Connection::State;
    if (packet.op == op::rst) {
        if (connection.state == Requested)
            counters_.refused_guest.add();
        return remove(connection);
    }
    if (connection.state == Dying)
        return;  // what it is owed ends it
    connection.send_credit.update(packet.buf_alloc, packet.fwd_cnt);
    const bool opens =
        packet.op == op::response && connection.state == Requested && !connection.owes_opening;
    if (!opens && connection.state == Requested)
        return violation(connection, "it is not open yet");
    switch (packet.op) {
        case op::response:
            if (!opens)
                return violation(connection, "a second response");
            connection.state = Open;
            connection.deadline.reset();
            connection.look_again();
            if (!connection.confirm())
                return kill(connection);
            break;
        case op::rw:
            take_payload(connection, packet, chain);
            break;
        case op::shutdown:
            return take_shutdown(connection, packet);
        case op::credit_update:
            break;
        case op::credit_request:
            connection.owes_credit_update = true;
            break;
        default:
            return violation(connection, "an operation that does not fit");
    }
    enqueue(connection);
}

void VirtioVsock::take_payload(Connection& connection, const Header& packet,
                               const virtio::Chain& chain) {
    if (packet.len > chain.readable_size() - header_size)
        return violation(connection, "a length beyond the packet");
    if ((connection.guest_shutdown & shutdown::send) != 0)
        return violation(connection, "bytes after their end");
    if (!connection.receive_credit.accept(packet.len))
        return violation(connection, "more bytes than there is credit for");
    iovecs_.clear();
    if (!virtio::slice_iovecs(chain.readable(), header_size, packet.len, iovecs_))
        return;
    counters_.tx_bytes.add(packet.len);
    connection.pass_on(iovecs_, packet.len);
}

// Who neither reads nor writes any more is answered at once, whatever the program has still to
// read: the guest need not wait for that.
void VirtioVsock::take_shutdown(Connection& connection, const Header& packet) {
    const auto before = connection.guest_shutdown;
    connection.guest_shutdown |= packet.flags & shutdown::both;
    const auto added = connection.guest_shutdown & ~before;
    if ((added & shutdown::send) != 0)
        connection.finish_sending();
    if ((added & shutdown::receive) != 0)
        connection.stop_receiving();
    if (connection.guest_shutdown != shutdown::both)
        return enqueue(connection);
    refuse(packet);
    if (connection.flushed())
        return remove(connection);
    if (std::exchange(connection.queued, false))
        std::erase(ready_, &connection);
    by_ports_.erase(connection.ports);
    connection.state = Connection::State::Lingering;
    set_deadline(connection, options_.shutdown_timeout);
}

}  // namespace masu::vsock
