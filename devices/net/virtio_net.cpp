// virtio-net: set-up, configuration space, and what wakes it.
#include "devices/net/virtio_net.hpp"

#include <sys/epoll.h>

#include <algorithm>

#include "base/bytes.hpp"

namespace masu::net {
namespace {

// struct virtio_net_config (5.1.4), as far as our features define it.
struct [[gnu::packed]] Config {
    MacAddress mac;
    std::uint16_t status;
    std::uint16_t max_virtqueue_pairs;
    std::uint16_t mtu;
};
static_assert(sizeof(Config) == 12);

constexpr std::uint16_t status_link_up = 1;
constexpr std::uint16_t status_announce = 2;

// epoll reports errors and hang-ups whether asked or not, over and over, but for a one-shot watch
// only once: a detached TAP queue and a dead passt would keep the loop spinning otherwise.
constexpr std::uint32_t watch_nothing = EPOLLONESHOT;

}  // namespace

VirtioNet::Counters::Counters(Metrics& metrics, const std::string& group)
    : rx_packets(metrics.counter(group, "rx_packets")),
      rx_bytes(metrics.counter(group, "rx_bytes")),
      tx_packets(metrics.counter(group, "tx_packets")),
      tx_bytes(metrics.counter(group, "tx_bytes")),
      rx_denied(metrics.counter(group, "rx_denied")),
      tx_denied(metrics.counter(group, "tx_denied")),
      rx_dropped(metrics.counter(group, "rx_dropped")),
      tx_dropped(metrics.counter(group, "tx_dropped")),
      tx_malformed(metrics.counter(group, "tx_malformed")),
      rx_throttled(metrics.counter(group, "rx_throttled")),
      tx_throttled(metrics.counter(group, "tx_throttled")),
      service_packets(metrics.counter(group, "service_packets")),
      control_refused(metrics.counter(group, "control_refused")),
      backend_closed(metrics.counter(group, "backend_closed")) {}

VirtioNet::VirtioNet(std::string id, Backend& backend, FrameFilter& filter, GuestServices* services,
                     const Options& options, EventLoop& loop, Log log, Metrics& metrics,
                     const Clock& clock)
    : id_(std::move(id)),
      backend_(backend),
      filter_(filter),
      services_(services),
      options_(options),
      loop_(loop),
      log_(std::move(log)),
      clock_(clock),
      counters_(metrics, "net_" + id_),
      rx_limiter_(options.rx_limits, clock.now()),
      tx_limiter_(options.tx_limits, clock.now()),
      pairs_(std::clamp(options.queue_pairs, 1U, backend.queues())),
      tx_heads_(FrameFilter::max_burst * head_size),
      tx_buffer_(max_frame_size) {
    queue_sizes_.assign(2 * pairs_.size(), queue_size);
    queue_sizes_.push_back(control_queue_size);
    for (auto& pair : pairs_)
        pair.frame = ZeroedBytes(sizeof(NetHeader) + max_frame_size);
    tx_chains_.reserve(FrameFilter::max_burst);
    tx_iovecs_.reserve(virtio::max_chain_length + 2);
    rx_chains_.reserve(queue_size);
    service_packet_.reserve(sizeof(NetHeader) + 2048);
    answer_packet_.reserve(sizeof(NetHeader) + 2048);
}

Result<std::unique_ptr<VirtioNet>> VirtioNet::create(std::string id, Backend& backend,
                                                     FrameFilter& filter, GuestServices* services,
                                                     Options options, EventLoop& loop, Log log,
                                                     Metrics& metrics, const Clock& clock) {
    std::unique_ptr<VirtioNet> net(new VirtioNet(std::move(id), backend, filter, services, options,
                                                 loop, std::move(log), metrics, clock));
    net->timer_ = TRY(loop.timer([raw = net.get()] {
        const std::lock_guard lock(raw->mutex());
        raw->on_timer();
    }));
    net->cut_timer_ = TRY(loop.timer([raw = net.get()] {
        const std::lock_guard lock(raw->mutex());
        raw->on_cut_timer();
    }));
    TRY(net->watch_backend());
    backend.set_active_queues(1);
    backend.set_receive_offloads(0);
    return net;
}

VirtioNet::~VirtioNet() = default;

Result<> VirtioNet::watch_backend() {
    for (std::size_t i = 0; i < pairs_.size(); ++i) {
        pairs_[i].watch = TRY(loop_.watch(backend_.fd(static_cast<unsigned>(i)), watch_nothing,
                                          [this, i](std::uint32_t events) {
                                              const std::lock_guard lock(mutex());
                                              on_backend(i, events);
                                          }));
        pairs_[i].watched = watch_nothing;
    }
    return {};
}

// Waits for exactly what this pair could go on with.
void VirtioNet::watch_for(std::size_t index) noexcept {
    auto& pair = pairs_[index];
    std::uint32_t events = 0;
    if (driver_ != nullptr && link_is_up() && !faulted_ && index < active_pairs_) {
        if (pair.rx && !pair.rx_waiting && !pair.rx_throttled)
            events |= EPOLLIN;
        if (pair.tx_blocked || !backend_.flush(static_cast<unsigned>(index)))
            events |= EPOLLOUT;
    }
    if (events == 0)
        events = watch_nothing;
    if (events != std::exchange(pair.watched, events))
        pair.watch.set_events(events);
}

void VirtioNet::on_backend(std::size_t index, std::uint32_t events) {
    auto& pair = pairs_[index];
    if (pair.watched == watch_nothing)
        return;  // one last report of a queue that is not in use
    if ((events & EPOLLOUT) != 0 && backend_.flush(static_cast<unsigned>(index))) {
        pair.tx_blocked = false;
        transmit(index);
    }
    if ((events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0)
        receive(index);
    watch_for(index);
}

// Whatever waited for time to pass looks again; what is still too early arms the timer anew.
void VirtioNet::on_timer() {
    timer_at_.reset();
    if (driver_ == nullptr || faulted_)
        return;
    if (control_pending_)
        serve_control();
    deliver_services();
    for (std::size_t i = 0; i < active_pairs_; ++i) {
        pairs_[i].rx_throttled = false;
        transmit(i);
        receive(i);
        watch_for(i);
    }
}

void VirtioNet::arm(Nanoseconds delay) {
    const auto at = clock_.now() + delay;
    if (timer_at_ && *timer_at_ <= at)
        return;
    timer_at_ = at;
    timer_->arm(delay);
}

void VirtioNet::backend_closed() {
    if (!std::exchange(link_up_, false))
        return;
    counters_.backend_closed.add();
    log_.error("the backend is gone; the guest's link is down", {kv("interface", id_)});
    if (driver_ != nullptr)
        driver_->interrupt_config();
}

void VirtioNet::fault(const char* why) {
    faulted_ = true;
    driver_->fault(why);
    for (std::size_t i = 0; i < pairs_.size(); ++i)
        watch_for(i);
}

void VirtioNet::update_limits(const RateLimiter::Limits& rx, const RateLimiter::Limits& tx) {
    const std::lock_guard lock(mutex());
    rx_limiter_.update(rx, clock_.now());
    tx_limiter_.update(tx, clock_.now());
    on_timer();
}

std::uint64_t VirtioNet::features() const noexcept {
    const auto offloads = backend_.offloads();
    std::uint64_t bits = feature::mac | feature::status | feature::mrg_rxbuf | feature::ctrl_vq |
                         feature::guest_announce | host_features(offloads) |
                         guest_features(offloads);
    if (offloads != 0)
        bits |= feature::ctrl_guest_offloads;
    if (options_.mtu)
        bits |= feature::mtu;
    if (pairs_.size() > 1)
        bits |= feature::mq;
    return bits;
}

void VirtioNet::read_config(std::uint64_t offset, std::span<std::byte> data) const noexcept {
    constexpr auto status_end = offsetof(Config, status) + sizeof(Config::status);
    if (cut_until_ && offset < status_end && offset + data.size() > offsetof(Config, status))
        cut_seen_ = true;
    unsigned status = link_is_up() ? status_link_up : 0;
    if (announce_)
        status |= status_announce;
    const Config config{.mac = options_.mac,
                        .status = static_cast<std::uint16_t>(status),
                        .max_virtqueue_pairs = static_cast<std::uint16_t>(pairs_.size()),
                        .mtu = options_.mtu.value_or(0)};
    const auto bytes = as_bytes_of(config);
    std::ranges::fill(data, std::byte{0});
    if (offset < bytes.size())
        std::ranges::copy(bytes.subspan(offset, std::min(data.size(), bytes.size() - offset)),
                          data.begin());
}

void VirtioNet::write_config(std::uint64_t /*offset*/,
                             std::span<const std::byte> /*data*/) noexcept {}

// 5.1.2: without MQ the driver sees one pair, and the control queue right behind it.
std::size_t VirtioNet::control_index() const noexcept {
    return (negotiated_ & feature::mq) != 0 ? 2 * pairs_.size() : 2;
}

void VirtioNet::activate(virtio::Activation activation) {
    driver_ = activation.driver;
    negotiated_ = activation.features;
    tx_offloads_ = host_offloads(negotiated_);
    mergeable_ = (negotiated_ & feature::mrg_rxbuf) != 0;
    faulted_ = false;
    const auto control_at = control_index();
    for (std::size_t i = 0; i < activation.queues.size(); ++i) {
        auto& queue = activation.queues[i];
        if (i == control_at) {
            if ((negotiated_ & feature::ctrl_vq) != 0)
                control_ = std::move(queue);
        } else if (i < control_at && i / 2 < pairs_.size()) {
            (i % 2 == 0 ? pairs_[i / 2].rx : pairs_[i / 2].tx) = std::move(queue);
        }
    }
    driver_offloads_ = negotiated_ & all_guest_offloads;
    if (restored_) {
        resume_restored();
        return;
    }
    backend_.set_receive_offloads(guest_offloads(driver_offloads_));
    set_active_pairs(1);
}

void VirtioNet::set_active_pairs(unsigned count) {
    active_pairs_ = count;
    backend_.set_active_queues(count);
    for (std::size_t i = 0; i < pairs_.size(); ++i)
        watch_for(i);
}

void VirtioNet::notify(std::uint16_t index) {
    if (driver_ == nullptr || faulted_)
        return;
    if (index == control_index()) {
        if (control_)
            serve_control();
        return;
    }
    const std::size_t pair = index / 2;
    if (pair >= active_pairs_)
        return;
    if (index % 2 == 1) {
        pairs_[pair].tx_pending = true;
        transmit(pair);
    } else {
        pairs_[pair].rx_waiting = false;
        if (pair == 0)
            deliver_services();
        receive(pair);
    }
    watch_for(pair);
}

void VirtioNet::reset() {
    timer_->disarm();
    timer_at_.reset();
    cut_timer_->disarm();
    cut_until_.reset();
    announce_ = false;
    driver_ = nullptr;
    for (std::size_t i = 0; i < pairs_.size(); ++i) {
        auto& pair = pairs_[i];
        pair.rx.reset();
        pair.tx.reset();
        pair.rx_waiting = pair.rx_throttled = false;
        pair.tx_pending = pair.tx_blocked = pair.tx_throttled = false;
        pair.frame_size = 0;
        pair.rx_admitted = false;
        watch_for(i);
    }
    control_.reset();
    control_pending_ = false;
    rx_chains_.clear();
    service_packet_.clear();
    if (services_ != nullptr)
        services_->reset();
    negotiated_ = 0;
    tx_offloads_ = 0;
    driver_offloads_ = 0;
    restored_.reset();
    active_pairs_ = 1;
    faulted_ = false;
    backend_.set_active_queues(1);
    backend_.set_receive_offloads(0);
}

}  // namespace masu::net
