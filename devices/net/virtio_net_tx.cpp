// virtio-net: frames of the guest, from its ring to the backend. Allocates nothing.
#include <algorithm>
#include <climits>

#include "base/bytes.hpp"
#include "devices/net/virtio_net.hpp"

namespace masu::net {

void VirtioNet::transmit(std::size_t index) {
    auto& pair = pairs_[index];
    if (!pair.tx || !pair.tx_pending || pair.tx_blocked || faulted_)
        return;
    pair.tx->disable_notifications();
    std::size_t budget = chains_per_turn;
    while (budget > 0) {
        // What may have to wait for tokens is taken one at a time.
        const auto most = tx_limiter_.limited() ? 1 : std::min(FrameFilter::max_burst, budget);
        if (!take_burst(*pair.tx, most))
            return;
        if (tx_chains_.empty()) {
            // The second look is for a buffer that came in before the driver saw our wish.
            if (pair.tx->enable_notifications())
                continue;
            pair.tx_pending = false;
            break;
        }
        budget -= tx_chains_.size();
        if (transmit_burst(pair, static_cast<unsigned>(index)) == Outcome::Wait)
            break;
    }
    if (budget == 0)
        arm(0);
    if (pair.tx->needs_interrupt())
        driver_->interrupt_queue(static_cast<std::uint16_t>(2 * index + 1));
    deliver_services();
}

// Takes the next chains, and has the filter prepare for all of them. False after a fault of the
// ring, which waits until the chains before it are done.
bool VirtioNet::take_burst(virtio::Queue& queue, std::size_t most) {
    tx_chains_.clear();
    while (tx_chains_.size() < most) {
        auto popped = queue.pop();
        if (!popped) {
            if (!tx_chains_.empty())
                return true;  // a fault stays: the next pop() tells of it again
            fault(virtio::to_string(popped.error()));
            return false;
        }
        if (!*popped)
            return true;
        copy_head(**popped, tx_chains_.size());
        tx_chains_.push_back(std::move(**popped));
    }
    return true;
}

void VirtioNet::copy_head(const virtio::Chain& chain, std::size_t place) {
    auto& frame = tx_frames_[place];
    const auto total = chain.readable_size();
    frame.size = 0;
    if (total < sizeof frame.header + ethernet_header_size ||
        total > sizeof frame.header + max_frame_size)
        return;
    frame.size = static_cast<std::size_t>(total - sizeof frame.header);
    chain.read(0, std::as_writable_bytes(std::span(&frame.header, 1)));
    frame.copied = std::span(tx_heads_).subspan(place * head_size, std::min(frame.size, head_size));
    chain.read(sizeof frame.header, frame.copied);
    filter_.prepare(place, Direction::Egress,
                    {frame.copied, static_cast<std::uint32_t>(frame.size)});
}

// In their order. From the first that has to wait on, all go back.
VirtioNet::Outcome VirtioNet::transmit_burst(Pair& pair, unsigned queue) {
    for (std::size_t i = 0; i < tx_chains_.size(); ++i) {
        if (transmit_one(pair, queue, i) == Outcome::Served) {
            pair.tx->complete(std::move(tx_chains_[i]), 0);
            continue;
        }
        for (std::size_t last = tx_chains_.size(); last > i; --last)
            pair.tx->put_back(std::move(tx_chains_[last - 1]));
        return Outcome::Wait;
    }
    return Outcome::Served;
}

VirtioNet::Outcome VirtioNet::transmit_one(Pair& pair, unsigned queue, std::size_t place) {
    const auto& frame = tx_frames_[place];
    if (frame.size == 0) {
        counters_.tx_malformed.add();
        log_.guest_fault("a frame of an impossible size",
                         {kv("interface", id_), kv("size", tx_chains_[place].readable_size())});
        return Outcome::Served;
    }
    if (services_ != nullptr && services_->wants(frame.copied)) {
        serve_guest(tx_chains_[place], frame);
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
        if (!tx_limiter_.try_take(frame.size, 1, now)) {
            if (!std::exchange(pair.tx_throttled, true))
                counters_.tx_throttled.add();
            arm(tx_limiter_.ready_in(frame.size, 1, now));
            return Outcome::Wait;
        }
        pair.tx_throttled = false;
    }
    forward(queue, place);
    return Outcome::Served;
}

void VirtioNet::forward(unsigned queue, std::size_t place) {
    auto& frame = tx_frames_[place];
    const auto& chain = tx_chains_[place];
    auto judged = judge_header(frame.header, frame.copied, frame.size, tx_offloads_);
    if (!judged) {
        counters_.tx_malformed.add();
        log_.guest_fault(to_string(judged.error()), {kv("interface", id_)});
        return;
    }
    const bool changed = judged->complete_checksum_first;
    if (changed) {
        frame.copied = whole_copy(chain, frame);
        complete_checksum(judged->header, frame.copied);
        judged->header = NetHeader();
    }
    switch (judge_frame(place, changed)) {
        case Action::Pass:
            break;
        case Action::Local:
            // What no service knows how to answer ends here; it never reaches the backend.
            if (services_ != nullptr)
                serve_guest(chain, frame);
            return;
        case Action::Answer:
            answer_guest(filter_.answer());
            return;
        case Action::Drop:
        case Action::NeedWholeFrame:
            counters_.tx_denied.add();
            return;
    }
    switch (backend_.send(queue, gather(chain, judged->header, frame))) {
        case IoStatus::Done:
            counters_.tx_packets.add();
            counters_.tx_bytes.add(frame.size);
            break;
        case IoStatus::Closed:
            backend_closed();
            [[fallthrough]];
        case IoStatus::Again:  // can_send() said otherwise
        case IoStatus::Dropped:
            counters_.tx_dropped.add();
            break;
    }
}

// `changed`: the copy is no longer what was prepared.
Action VirtioNet::judge_frame(std::size_t place, bool changed) {
    auto& frame = tx_frames_[place];
    const auto now = clock_.now();
    const auto length = static_cast<std::uint32_t>(frame.size);
    auto action =
        changed ? filter_.judge(Direction::Egress, {frame.copied, length}, now)
                : filter_.judge_prepared(place, Direction::Egress, {frame.copied, length}, now);
    if (action == Action::NeedWholeFrame && frame.size <= max_inspected_bytes) {
        frame.copied = whole_copy(tx_chains_[place], frame);
        action = filter_.judge(Direction::Egress, {frame.copied, length}, now);
    }
    return action;
}

// The judged header, the judged copy, and the rest of the payload in the guest's memory.
std::span<const iovec> VirtioNet::gather(const virtio::Chain& chain, NetHeader& header,
                                         const TxFrame& frame) {
    const auto put_private = [&](std::span<std::byte> bytes) {
        tx_iovecs_.clear();
        tx_iovecs_.push_back({.iov_base = &header, .iov_len = sizeof header});
        tx_iovecs_.push_back({.iov_base = bytes.data(), .iov_len = bytes.size()});
    };
    put_private(frame.copied);
    const auto copied = frame.copied.size();
    if (copied < frame.size) {
        std::ignore = virtio::slice_iovecs(chain.readable(), sizeof header + copied,
                                           frame.size - copied, tx_iovecs_);
        // More pieces than one writev() takes.
        if (tx_iovecs_.size() > IOV_MAX)
            put_private(whole_copy(chain, frame));
    }
    return tx_iovecs_;
}

// The judged copy, and behind it the rest of the payload.
std::span<std::byte> VirtioNet::whole_copy(const virtio::Chain& chain, const TxFrame& frame) {
    const auto whole = std::span(tx_buffer_).first(frame.size);
    const auto rest = whole.subspan(frame.copied.size());
    if (frame.copied.data() != whole.data())
        std::ranges::copy(frame.copied, whole.begin());
    if (!rest.empty())
        chain.read(sizeof(NetHeader) + frame.copied.size(), rest);
    return whole;
}

// What was copied before decided that it is theirs; the remainder alone is fetched now.
void VirtioNet::serve_guest(const virtio::Chain& chain, const TxFrame& frame) {
    counters_.service_packets.add();
    services_->receive(whole_copy(chain, frame), clock_.now());
}

}  // namespace masu::net
