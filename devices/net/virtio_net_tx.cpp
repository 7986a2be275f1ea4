// virtio-net: frames of the guest, from its ring to the backend. Allocates nothing.
#include <algorithm>
#include <climits>

#include "base/bytes.hpp"
#include "devices/net/virtio_net.hpp"

namespace masu::net {
namespace {

// So much of each frame is copied: all of an unsegmented one, all headers of a segmented one.
constexpr std::size_t copied_at_once = 2048;
static_assert(copied_at_once >= max_header_bytes);

}  // namespace

void VirtioNet::transmit(std::size_t index) {
    auto& pair = pairs_[index];
    if (!pair.tx || !pair.tx_pending || pair.tx_blocked || faulted_)
        return;
    pair.tx->disable_notifications();
    int budget = chains_per_turn;
    for (; budget > 0; --budget) {
        auto popped = pair.tx->pop();
        if (!popped) {
            fault(virtio::to_string(popped.error()));
            return;
        }
        if (!*popped) {
            // The second look is for a buffer that came in before the driver saw our wish.
            if (pair.tx->enable_notifications())
                continue;
            pair.tx_pending = false;
            break;
        }
        auto& chain = **popped;
        if (transmit_one(pair, static_cast<unsigned>(index), chain) == Outcome::Wait) {
            pair.tx->put_back(std::move(chain));
            break;
        }
        pair.tx->complete(std::move(chain), 0);
    }
    if (budget == 0)
        arm(0);
    if (pair.tx->needs_interrupt())
        driver_->interrupt_queue(static_cast<std::uint16_t>(2 * index + 1));
    deliver_services();
}

VirtioNet::Outcome VirtioNet::transmit_one(Pair& pair, unsigned queue, virtio::Chain& chain) {
    NetHeader header;
    const auto total = chain.readable_size();
    if (total < sizeof header + ethernet_header_size || total > sizeof header + max_frame_size) {
        counters_.tx_malformed.add();
        log_.guest_fault("a frame of an impossible size",
                         {kv("interface", id_), kv("size", total)});
        return Outcome::Served;
    }
    const auto size = static_cast<std::size_t>(total - sizeof header);
    chain.read(0, std::as_writable_bytes(std::span(&header, 1)));
    const auto bytes = std::span(tx_buffer_).first(std::min(size, copied_at_once));
    chain.read(sizeof header, bytes);
    if (services_ != nullptr && services_->wants(bytes)) {
        serve_guest(chain, size);
        return Outcome::Served;
    }

    if (!backend_.can_send(queue)) {
        pair.tx_blocked = link_up_;
        if (!link_up_)
            counters_.tx_dropped.add();
        return link_up_ ? Outcome::Wait : Outcome::Served;
    }
    if (tx_limiter_.limited()) {
        const auto now = clock_.now();
        if (!tx_limiter_.try_take(size, 1, now)) {
            if (!std::exchange(pair.tx_throttled, true))
                counters_.tx_throttled.add();
            arm(tx_limiter_.ready_in(size, 1, now));
            return Outcome::Wait;
        }
        pair.tx_throttled = false;
    }
    return forward(pair, queue, chain, header, size);
}

VirtioNet::Outcome VirtioNet::forward(Pair& /*pair*/, unsigned queue, const virtio::Chain& chain,
                                      const NetHeader& driver_header, std::size_t size) {
    auto copied = std::min(size, copied_at_once);
    const auto bytes = [&] { return std::span(tx_buffer_).first(copied); };
    auto judged = judge_header(driver_header, bytes(), size, tx_offloads_);
    if (!judged) {
        counters_.tx_malformed.add();
        log_.guest_fault(to_string(judged.error()), {kv("interface", id_)});
        return Outcome::Served;
    }
    if (judged->complete_checksum_first) {
        if (copied < size && !copy_whole(chain, size))
            return Outcome::Served;
        copied = size;
        complete_checksum(judged->header, bytes());
        judged->header = NetHeader();
    }

    const auto now = clock_.now();
    const auto length = static_cast<std::uint32_t>(size);
    auto action = filter_.judge(Direction::Egress, {bytes(), length}, now);
    if (action == Action::NeedWholeFrame && size <= max_inspected_bytes) {
        if (copied < size && !copy_whole(chain, size))
            return Outcome::Served;
        copied = size;
        action = filter_.judge(Direction::Egress, {bytes(), length}, now);
    }
    switch (action) {
        case Action::Pass:
            break;
        case Action::Local:
            // What no service knows how to answer ends here; it never reaches the backend.
            if (services_ != nullptr)
                serve_guest(chain, size);
            return Outcome::Served;
        case Action::Answer:
            answer_guest(filter_.answer());
            return Outcome::Served;
        case Action::Drop:
        case Action::NeedWholeFrame:
            counters_.tx_denied.add();
            return Outcome::Served;
    }

    const auto packet = gather(chain, judged->header, copied, size);
    switch (backend_.send(queue, packet)) {
        case IoStatus::Done:
            counters_.tx_packets.add();
            counters_.tx_bytes.add(size);
            break;
        case IoStatus::Closed:
            backend_closed();
            [[fallthrough]];
        case IoStatus::Again:  // can_send() said otherwise
        case IoStatus::Dropped:
            counters_.tx_dropped.add();
            break;
    }
    return Outcome::Served;
}

// The judged header, the judged copy, and the rest of the payload in the guest's memory.
std::span<const iovec> VirtioNet::gather(const virtio::Chain& chain, NetHeader& header,
                                         std::size_t copied, std::size_t size) {
    const auto put_private = [&](std::size_t bytes) {
        tx_iovecs_.clear();
        tx_iovecs_.push_back({.iov_base = &header, .iov_len = sizeof header});
        tx_iovecs_.push_back({.iov_base = tx_buffer_.data(), .iov_len = bytes});
    };
    put_private(copied);
    if (copied < size) {
        std::ignore = virtio::slice_iovecs(chain.readable(), sizeof header + copied, size - copied,
                                           tx_iovecs_);
        // More pieces than one writev() takes. The copy ends where the judged bytes begin.
        if (tx_iovecs_.size() > IOV_MAX) {
            chain.read(sizeof header + copied,
                       std::span(tx_buffer_).subspan(copied, size - copied));
            put_private(size);
        }
    }
    return tx_iovecs_;
}

// The bytes at the front may change under us, but all of them are judged after this.
bool VirtioNet::copy_whole(const virtio::Chain& chain, std::size_t size) {
    return chain.read(sizeof(NetHeader), std::span(tx_buffer_).first(size)) == size;
}

void VirtioNet::serve_guest(const virtio::Chain& chain, std::size_t size) {
    counters_.service_packets.add();
    // What was copied before decided that it is theirs; the remainder alone is fetched now.
    if (size > copied_at_once)
        chain.read(sizeof(NetHeader) + copied_at_once,
                   std::span(tx_buffer_).subspan(copied_at_once, size - copied_at_once));
    services_->receive(std::span(tx_buffer_).first(size), clock_.now());
}

}  // namespace masu::net
