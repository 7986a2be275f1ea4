// virtio-net: frames for the guest, from the backend or the monitor's services into its buffers.
#include <algorithm>

#include "base/bytes.hpp"
#include "devices/net/virtio_net.hpp"

namespace masu::net {

void VirtioNet::receive(std::size_t index) {
    auto& pair = pairs_[index];
    if (!pair.rx || pair.rx_waiting || pair.rx_throttled || faulted_ || driver_ == nullptr)
        return;
    pair.rx->disable_notifications();
    for (int budget = frames_per_turn; budget > 0; --budget) {
        if (pair.frame_size == 0 && !next_frame(pair, static_cast<unsigned>(index)))
            break;
        if (pair.frame_size == 0)
            continue;  // it was dropped
        const auto size = pair.frame_size - sizeof(NetHeader);
        if (!admit(pair, size))
            break;
        const auto delivery = deliver(*pair.rx, std::span(pair.frame).first(pair.frame_size));
        if (delivery == Delivery::Fault)
            return;
        if (delivery == Delivery::NoBuffers) {
            pair.rx_waiting = true;
            break;
        }
        pair.frame_size = 0;
        pair.rx_admitted = false;
        if (delivery == Delivery::Delivered) {
            counters_.rx_packets.add();
            counters_.rx_bytes.add(size);
        } else {
            counters_.rx_dropped.add();
        }
        // More may be in the backend's own memory, of which its descriptor tells nothing.
        if (budget == 1)
            arm(0);
    }
    if (pair.rx->needs_interrupt())
        driver_->interrupt_queue(static_cast<std::uint16_t>(2 * index));
}

// Takes the tokens of the waiting frame, once.
bool VirtioNet::admit(Pair& pair, std::size_t size) {
    if (pair.rx_admitted || !rx_limiter_.limited())
        return true;
    const auto now = clock_.now();
    if (rx_limiter_.try_take(size, 1, now)) {
        pair.rx_admitted = true;
        return true;
    }
    pair.rx_throttled = true;
    counters_.rx_throttled.add();
    arm(rx_limiter_.ready_in(size, 1, now));
    return false;
}

// Fetches and judges one frame; false when there is none.
bool VirtioNet::next_frame(Pair& pair, unsigned queue) {
    const auto received = backend_.receive(queue, pair.frame);
    switch (received.status) {
        case IoStatus::Done:
            break;
        case IoStatus::Dropped:
            counters_.rx_dropped.add();
            return true;
        case IoStatus::Closed:
            backend_closed();
            return false;
        case IoStatus::Again:
            return false;
    }
    if (received.size < sizeof(NetHeader) + ethernet_header_size) {
        counters_.rx_dropped.add();
        return true;
    }
    const auto frame =
        std::span(pair.frame).subspan(sizeof(NetHeader), received.size - sizeof(NetHeader));
    if (services_ != nullptr && services_->impersonates(frame)) {
        counters_.rx_dropped.add();
        return true;
    }
    const auto length = static_cast<std::uint32_t>(frame.size());
    if (filter_.judge(Direction::Ingress, {frame, length}, clock_.now()) != Action::Pass) {
        counters_.rx_denied.add();
        return true;
    }
    pair.frame_size = received.size;
    return true;
}

VirtioNet::Delivery VirtioNet::deliver(virtio::Queue& queue, std::span<std::byte> packet) {
    rx_chains_.clear();
    std::uint64_t room = 0;
    const auto give_back = [&] {
        while (!rx_chains_.empty()) {
            queue.put_back(std::move(rx_chains_.back()));
            rx_chains_.pop_back();
        }
    };
    while (room < packet.size()) {
        auto popped = queue.pop();
        if (!popped) {
            rx_chains_.clear();
            fault(virtio::to_string(popped.error()));
            return Delivery::Fault;
        }
        if (*popped) {
            room += (*popped)->writable_size();
            rx_chains_.push_back(std::move(**popped));
            // 5.1.6.3.1: without mergeable buffers each has room for any frame; and all buffers
            // there can ever be may still be too few.
            if (room < packet.size() && (!mergeable_ || rx_chains_.size() == queue.size())) {
                give_back();
                return Delivery::Dropped;
            }
            continue;
        }
        const auto have = static_cast<std::uint16_t>(rx_chains_.size());
        give_back();
        if (!queue.enable_notifications_beyond(have))
            return Delivery::NoBuffers;
        room = 0;
    }

    // num_buffers is 1 also where buffers are not merged (5.1.6.4.1).
    store_unaligned(packet.data() + offsetof(NetHeader, num_buffers),
                    static_cast<std::uint16_t>(rx_chains_.size()));
    std::span<const std::byte> rest = packet;
    for (auto& chain : rx_chains_) {
        const auto written = chain.write(0, rest);
        rest = rest.subspan(written);
        queue.complete(std::move(chain), static_cast<std::uint32_t>(written));
    }
    rx_chains_.clear();
    return Delivery::Delivered;
}

// Answers of the monitor's services: on the first queue, before what comes from outside.
void VirtioNet::deliver_services() {
    if (services_ == nullptr || driver_ == nullptr || faulted_)
        return;
    auto& pair = pairs_[0];
    if (!pair.rx)
        return;
    const auto now = clock_.now();
    for (int budget = frames_per_turn; budget > 0; --budget) {
        if (service_packet_.empty()) {
            const auto frame = services_->take_frame(now);
            if (frame.empty())
                break;
            service_packet_.assign(sizeof(NetHeader), std::byte{0});
            service_packet_.insert(service_packet_.end(), frame.begin(), frame.end());
        }
        const auto delivery = deliver(*pair.rx, service_packet_);
        if (delivery == Delivery::Fault)
            return;
        if (delivery == Delivery::NoBuffers)
            break;
        service_packet_.clear();
        if (budget == 1)
            arm(0);
    }
    if (pair.rx->needs_interrupt())
        driver_->interrupt_queue(0);
    if (const auto deadline = services_->next_deadline())
        arm(*deadline > now ? *deadline - now : 0);
}

// An answer of the filter. Where no buffer is free it is lost, as on any wire.
void VirtioNet::answer_guest(std::span<const std::byte> frame) {
    auto& pair = pairs_[0];
    if (!pair.rx || frame.empty())
        return;
    answer_packet_.assign(sizeof(NetHeader), std::byte{0});
    answer_packet_.insert(answer_packet_.end(), frame.begin(), frame.end());
    if (deliver(*pair.rx, answer_packet_) == Delivery::Delivered && pair.rx->needs_interrupt())
        driver_->interrupt_queue(0);
}

}  // namespace masu::net
