// virtio-vsock: packets to the guest.
#include <algorithm>
#include <climits>

#include "base/bytes.hpp"
#include "devices/vsock/virtio_vsock.hpp"

namespace masu::vsock {

void VirtioVsock::deliver() {
    if (!running() || !rx_ || rx_waiting_)
        return;
    rx_->disable_notifications();
    auto turn = Turn::More;
    for (int budget = packets_per_turn; budget > 0 && turn == Turn::More; --budget)
        turn = next_packet();
    if (turn == Turn::Stopped)
        return;
    if (turn == Turn::More)
        arm(0);
    rx_waiting_ = turn == Turn::NoBuffers;
    if (rx_->needs_interrupt())
        driver_->interrupt_queue(static_cast<std::uint16_t>(QueueIndex::Rx));
}

VirtioVsock::Turn VirtioVsock::next_packet() {
    if (!replies_.empty()) {
        const auto turn = send(replies_.front());
        if (turn == Turn::More)
            replies_.pop_front();
        return turn;
    }
    if (ready_.empty())
        return Turn::Idle;
    auto& connection = *ready_.front();
    const bool dying = connection.state == Connection::State::Dying;
    const auto turn = serve_connection(connection);
    if (turn != Turn::More)
        return turn;
    ready_.pop_front();
    connection.queued = false;
    if (dying)
        remove(connection);
    else
        enqueue(connection);
    return Turn::More;
}

VirtioVsock::Turn VirtioVsock::serve_connection(Connection& connection) {
    const auto packet = owed_packet(connection);
    if (!packet)
        return connection.may_send() ? send_bytes(connection) : Turn::More;
    const auto turn = send(*packet);
    if (turn == Turn::More)
        note_sent(connection, *packet);
    return turn;
}

// The end of the program's bytes is known only when all of them have been sent, so that news may
// always go first.
std::optional<Header> VirtioVsock::owed_packet(Connection& connection) const {
    if (connection.state == Connection::State::Dying)
        return header_for(connection, op::rst);
    if (connection.owes_opening)
        return header_for(connection, connection.guest_asked ? op::response : op::request);
    const auto over = connection.host_shutdown();
    if ((over & ~connection.told_shutdown) != 0) {
        auto header = header_for(connection, op::shutdown);
        header.flags = over;
        return header;
    }
    if (connection.owes_credit_request)
        return header_for(connection, op::credit_request);
    if (connection.owes_credit_update && !connection.may_send())
        return header_for(connection, op::credit_update);
    return std::nullopt;
}

void VirtioVsock::note_sent(Connection& connection, const Header& header) {
    connection.receive_credit.told();
    connection.owes_credit_update = false;
    switch (header.op) {
        case op::request:
        case op::response:
            connection.owes_opening = false;
            break;
        case op::shutdown:
            connection.told_shutdown = header.flags;
            if (header.flags == shutdown::both)
                set_deadline(connection, options_.shutdown_timeout);
            break;
        case op::credit_request:
            connection.owes_credit_request = false;
            break;
        default:
            break;
    }
}

Header VirtioVsock::header_for(const Connection& connection, std::uint16_t operation) const {
    return {.src_cid = host_cid,
            .dst_cid = options_.guest_cid,
            .src_port = connection.ports.host,
            .dst_port = connection.ports.guest,
            .type = type_stream,
            .op = operation,
            .buf_alloc = connection.receive_credit.buf_alloc(),
            .fwd_cnt = connection.receive_credit.fwd_cnt()};
}

// The driver's next buffer. None: it has none (rx_waiting_ will be), or broke a rule (faulted_).
std::optional<virtio::Chain> VirtioVsock::next_buffer() {
    while (true) {
        auto popped = rx_->pop();
        if (!popped) {
            fault(virtio::to_string(popped.error()));
            return std::nullopt;
        }
        if (*popped && (*popped)->writable_size() > header_size)
            return std::move(*popped);
        if (*popped) {
            fault("a vsock buffer has no room for a packet");
            return std::nullopt;
        }
        if (!rx_chains_.empty() || !rx_->enable_notifications())
            return std::nullopt;
    }
}

VirtioVsock::Turn VirtioVsock::send(const Header& header) {
    auto chain = next_buffer();
    if (!chain)
        return faulted_ ? Turn::Stopped : Turn::NoBuffers;
    chain->write(0, wire_bytes(header));
    rx_->complete(std::move(*chain), header_size);
    counters_.rx_packets.add();
    return Turn::More;
}

// Buffers for the next burst in rx_chains_, their room for payload in iovecs_; how much that is.
std::size_t VirtioVsock::gather_room(Connection& connection) {
    std::size_t room = 0;
    const std::size_t credit = connection.send_credit.available();
    iovecs_.clear();
    while (rx_chains_.size() < connection.burst && room < credit && iovecs_.size() < IOV_MAX) {
        auto chain = next_buffer();
        if (!chain)
            break;
        const auto part =
            std::min<std::uint64_t>(chain->writable_size() - header_size, credit - room);
        if (virtio::slice_iovecs(chain->writable(), header_size, part, iovecs_))
            room += static_cast<std::size_t>(part);
        rx_chains_.push_back(std::move(*chain));
    }
    return room;
}

// A connection begins with one buffer a burst and has twice as many each time it fills them.
VirtioVsock::Turn VirtioVsock::send_bytes(Connection& connection) {
    const auto room = gather_room(connection);
    if (faulted_) {
        rx_chains_.clear();
        return Turn::Stopped;
    }
    if (rx_chains_.empty())
        return Turn::NoBuffers;
    const auto size = connection.receive(iovecs_);
    connection.burst = size == room ? std::min<unsigned>(2 * connection.burst, max_burst) : 1;
    auto header = header_for(connection, op::rw);
    std::size_t used = 0;
    for (std::size_t left = size; left > 0; ++used) {
        auto& chain = rx_chains_[used];
        header.len = static_cast<std::uint32_t>(
            std::min<std::uint64_t>(chain.writable_size() - header_size, left));
        left -= header.len;
        chain.write(0, wire_bytes(header));
        rx_->complete(std::move(chain), static_cast<std::uint32_t>(header_size) + header.len);
        counters_.rx_packets.add();
    }
    for (auto i = rx_chains_.size(); i > used; --i)
        rx_->put_back(std::move(rx_chains_[i - 1]));
    rx_chains_.clear();
    if (size > 0) {
        connection.send_credit.sent(static_cast<std::uint32_t>(size));
        connection.receive_credit.told();
        connection.owes_credit_update = false;
        counters_.rx_bytes.add(size);
    }
    if (connection.broken())
        kill(connection);
    return Turn::More;
}

}  // namespace masu::vsock
