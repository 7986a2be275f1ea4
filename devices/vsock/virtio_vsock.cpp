// virtio-vsock: set-up, the life of connections, and what wakes it.
#include "devices/vsock/virtio_vsock.hpp"

#include <sys/epoll.h>

#include <algorithm>

#include "base/bytes.hpp"

namespace masu::vsock {

VirtioVsock::Counters::Counters(Metrics& metrics)
    : tx_packets(metrics.counter("vsock", "tx_packets")),
      tx_bytes(metrics.counter("vsock", "tx_bytes")),
      rx_packets(metrics.counter("vsock", "rx_packets")),
      rx_bytes(metrics.counter("vsock", "rx_bytes")),
      opened(metrics.counter("vsock", "opened")),
      closed(metrics.counter("vsock", "closed")),
      refused_full(metrics.counter("vsock", "refused_full")),
      refused_host(metrics.counter("vsock", "refused_host")),
      refused_guest(metrics.counter("vsock", "refused_guest")),
      timeouts(metrics.counter("vsock", "timeouts")),
      malformed(metrics.counter("vsock", "malformed")),
      violations(metrics.counter("vsock", "violations")) {}

VirtioVsock::VirtioVsock(Options options, EventLoop& loop, Log log, Metrics& metrics,
                         const Clock& clock)
    : options_(std::move(options)),
      loop_(loop),
      log_(std::move(log)),
      clock_(clock),
      counters_(metrics) {}

Result<std::unique_ptr<VirtioVsock>> VirtioVsock::create(Options options, EventLoop& loop, Log log,
                                                         Metrics& metrics, const Clock& clock) {
    std::unique_ptr<VirtioVsock> vsock(
        new VirtioVsock(std::move(options), loop, std::move(log), metrics, clock));
    vsock->timer_ = TRY(loop.timer([raw = vsock.get()] {
        const std::lock_guard lock(raw->mutex());
        raw->on_timer();
    }));
    return vsock;
}

VirtioVsock::~VirtioVsock() = default;

// struct virtio_vsock_config (5.10.4): the CID, whose upper half is zero.
void VirtioVsock::read_config(std::uint64_t offset, std::span<std::byte> data) const noexcept {
    const std::uint64_t cid = options_.guest_cid;
    const auto bytes = as_bytes_of(cid);
    std::ranges::fill(data, std::byte{0});
    if (offset < bytes.size())
        std::ranges::copy(bytes.subspan(offset, std::min(data.size(), bytes.size() - offset)),
                          data.begin());
}

void VirtioVsock::write_config(std::uint64_t /*offset*/,
                               std::span<const std::byte> /*data*/) noexcept {}

void VirtioVsock::activate(virtio::Activation activation) {
    driver_ = activation.driver;
    faulted_ = false;
    const auto take = [&](QueueIndex index) {
        return std::move(activation.queues[static_cast<std::size_t>(index)]);
    };
    rx_ = take(QueueIndex::Rx);
    tx_ = take(QueueIndex::Tx);
    event_ = take(QueueIndex::Event);
    phase_ = std::exchange(restored_, false) ? Phase::Restored : Phase::Running;
}

void VirtioVsock::notify(std::uint16_t index) {
    if (driver_ == nullptr || faulted_)
        return;
    switch (static_cast<QueueIndex>(index)) {
        case QueueIndex::Rx:
            rx_waiting_ = false;
            break;
        case QueueIndex::Tx:
            tx_pending_ = true;
            break;
        case QueueIndex::Event:
            look_whether_reset();
            break;
    }
    serve();
}

// Any thread, so nothing that the loop watches ends here. The programs see the end at once.
void VirtioVsock::reset() {
    for (auto& [id, connection] : connections_) {
        connection->cut();
        graveyard_.push_back(std::move(connection));
        counters_.closed.add();
    }
    connections_.clear();
    by_ports_.clear();
    ready_.clear();
    replies_.clear();
    rx_chains_.clear();
    driver_ = nullptr;
    faulted_ = false;
    rx_.reset();
    tx_.reset();
    event_.reset();
    rx_waiting_ = tx_pending_ = false;
    phase_ = Phase::Running;
    restored_ = event_sent_ = false;
    events_left_ = 0;
    arm(0);
}

void VirtioVsock::fault(std::string_view why) {
    faulted_ = true;
    driver_->fault(why);
}

void VirtioVsock::serve() {
    take_packets();
    deliver();
    // What deliver() has made room for, or this turn had no time for.
    if (running() && tx_ && tx_pending_ && replies_.size() < max_replies)
        arm(0);
}

void VirtioVsock::arm(Nanoseconds delay) {
    const auto at = clock_.now() + delay;
    if (timer_at_ && *timer_at_ <= at)
        return;
    timer_at_ = at;
    timer_->arm(delay);
}

void VirtioVsock::on_timer() {
    timer_at_.reset();
    graveyard_.clear();
    const auto now = clock_.now();
    if (phase_ == Phase::Resetting && now >= reset_deadline_)
        resume();
    std::vector<Connection*> late;
    std::optional<Nanoseconds> next;
    for (const auto& [id, connection] : connections_) {
        if (!connection->deadline)
            continue;
        if (*connection->deadline <= now)
            late.push_back(connection.get());
        else
            next = std::min(next.value_or(*connection->deadline), *connection->deadline);
    }
    for (auto* connection : late)
        expire(*connection);
    if (next)
        arm(*next - now);
    if (phase_ == Phase::Resetting)
        arm(reset_deadline_ - now);
    serve();
}

void VirtioVsock::set_deadline(Connection& connection, Nanoseconds after) {
    connection.deadline = clock_.now() + after;
    arm(after);
}

void VirtioVsock::expire(Connection& connection) {
    counters_.timeouts.add();
    const bool unknown_to_guest = connection.state == Connection::State::Greeting ||
                                  connection.state == Connection::State::Lingering;
    if (unknown_to_guest)
        remove(connection);
    else
        kill(connection);
}

void VirtioVsock::accept(Fd client) {
    const std::lock_guard lock(mutex());
    if (driver_ == nullptr || faulted_)
        return;
    if (connections_.size() >= options_.max_connections) {
        counters_.refused_full.add();
        return;
    }
    auto* connection = add(Connection::State::Greeting, std::move(client));
    if (connection == nullptr)
        return;
    set_deadline(*connection, options_.handshake_timeout);
    greet(*connection);
    serve();
}

Connection* VirtioVsock::add(Connection::State state, Fd socket) {
    const auto id = next_id_++;
    auto connection = std::make_unique<Connection>(id, state, std::move(socket));
    const auto watched = connection->watch(loop_, [this, id](std::uint32_t events) {
        const std::lock_guard lock(mutex());
        on_socket(id, events);
    });
    if (!watched) {
        log_.warn("a vsock connection was refused", {kv("error", watched.error().message)});
        return nullptr;
    }
    counters_.opened.add();
    return connections_.emplace(id, std::move(connection)).first->second.get();
}

void VirtioVsock::remove(Connection& connection) {
    counters_.closed.add();
    if (connection.queued)
        std::erase(ready_, &connection);
    if (find(connection.ports) == &connection)
        by_ports_.erase(connection.ports);
    connections_.erase(connection.id());
}

Connection* VirtioVsock::find(Ports ports) noexcept {
    const auto found = by_ports_.find(ports);
    return found == by_ports_.end() ? nullptr : found->second;
}

void VirtioVsock::kill(Connection& connection) {
    if (connection.state == Connection::State::Requested && connection.owes_opening)
        return remove(connection);  // the guest has not heard of it
    connection.state = Connection::State::Dying;
    connection.deadline.reset();
    connection.cut();
    enqueue(connection);
}

void VirtioVsock::enqueue(Connection& connection) {
    // Out of credit with bytes waiting: the guest may have forgotten to tell.
    if (connection.send_credit.available() > 0)
        connection.credit_requested = false;
    else if (connection.state == Connection::State::Open && connection.readable() &&
             connection.guest_reads() && !std::exchange(connection.credit_requested, true))
        connection.owes_credit_request = true;
    if (connection.receive_credit.worth_telling())
        connection.owes_credit_update = true;
    if (connection.queued || !connection.has_work())
        return;
    connection.queued = true;
    ready_.push_back(&connection);
}

void VirtioVsock::on_socket(std::uint64_t id, std::uint32_t events) {
    const auto found = connections_.find(id);
    if (found == connections_.end())
        return;  // ended by what came before in this round of the loop
    auto& connection = *found->second;
    connection.heard(events);
    using enum Connection::State;
    switch (connection.state) {
        case Greeting:
            greet(connection);
            break;
        case Requested:
            if (connection.hung_up())
                kill(connection);
            break;
        case Open:
            enqueue(connection);
            break;
        case Dying:
            break;
        case Lingering:
            if (connection.flushed() || connection.hung_up())
                remove(connection);
            break;
    }
    serve();
}

void VirtioVsock::greet(Connection& connection) {
    std::uint32_t port = 0;
    switch (connection.greet(port)) {
        case Connection::Greeted::NotYet:
            if (connection.hung_up())
                remove(connection);
            return;
        case Connection::Greeted::Refused:
            counters_.refused_guest.add();
            remove(connection);
            return;
        case Connection::Greeted::Asked:
            break;
    }
    connection.ports = {.guest = port, .host = free_host_port()};
    by_ports_.emplace(connection.ports, &connection);
    connection.state = Connection::State::Requested;
    connection.owes_opening = true;
    set_deadline(connection, options_.handshake_timeout);
    enqueue(connection);
}

// There are many more than connections.
std::uint32_t VirtioVsock::free_host_port() {
    const auto in_use = [&](std::uint32_t port) {
        return std::ranges::any_of(by_ports_,
                                   [&](const auto& entry) { return entry.first.host == port; });
    };
    for (std::size_t tries = 0; tries <= max_connections; ++tries) {
        const auto port = next_host_port_++;
        if (next_host_port_ >= end_of_host_ports)
            next_host_port_ = first_host_port;
        if (!in_use(port))
            return port;
    }
    return next_host_port_;
}

}  // namespace masu::vsock
