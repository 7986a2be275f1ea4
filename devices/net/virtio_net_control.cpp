// virtio-net: the control queue (virtio 1.2, 5.1.6.5).
#include <array>

#include "base/bytes.hpp"
#include "devices/net/virtio_net.hpp"

namespace masu::net {
namespace {

constexpr std::uint8_t class_announce = 3;
constexpr std::uint8_t announce_ack = 0;
constexpr std::uint8_t class_mq = 4;
constexpr std::uint8_t mq_vq_pairs_set = 0;
constexpr std::uint8_t class_guest_offloads = 5;
constexpr std::uint8_t guest_offloads_set = 0;

constexpr std::byte ack_ok{0};
constexpr std::byte ack_error{1};

struct [[gnu::packed]] Command {
    std::uint8_t command_class;
    std::uint8_t command;
};

template <class T>
std::optional<T> argument(const virtio::Chain& chain) {
    T value{};
    if (chain.readable_size() != sizeof(Command) + sizeof value)
        return std::nullopt;
    chain.read(sizeof(Command), std::as_writable_bytes(std::span(&value, 1)));
    return value;
}

}  // namespace

void VirtioNet::serve_control() {
    control_->disable_notifications();
    control_pending_ = true;
    for (int budget = control_queue_size; budget > 0; --budget) {
        auto popped = control_->pop();
        if (!popped) {
            fault(virtio::to_string(popped.error()));
            return;
        }
        if (!*popped) {
            if (control_->enable_notifications())
                continue;
            control_pending_ = false;
            break;
        }
        auto& chain = **popped;
        const bool done = control(chain);
        if (!done)
            counters_.control_refused.add();
        const std::array answer{done ? ack_ok : ack_error};
        const auto written = chain.write(0, answer);
        control_->complete(std::move(chain), static_cast<std::uint32_t>(written));
    }
    if (control_pending_)
        arm(0);
    if (control_->needs_interrupt())
        driver_->interrupt_queue(static_cast<std::uint16_t>(control_index()));
}

bool VirtioNet::control(const virtio::Chain& chain) {
    Command command{};
    if (chain.read(0, std::as_writable_bytes(std::span(&command, 1))) != sizeof command ||
        chain.writable_size() == 0)
        return false;
    if (command.command_class == class_announce && command.command == announce_ack) {
        if ((negotiated_ & feature::guest_announce) == 0)
            return false;
        announce_ = false;
        return true;
    }
    if (command.command_class == class_mq && command.command == mq_vq_pairs_set) {
        const auto count = argument<std::uint16_t>(chain);
        // 5.1.6.5.5.2: 1 to max_virtqueue_pairs.
        if ((negotiated_ & feature::mq) == 0 || !count || *count == 0 || *count > pairs_.size())
            return false;
        for (unsigned i = 0; i < *count; ++i)
            if (!pairs_[i].rx || !pairs_[i].tx)
                return false;
        set_active_pairs(*count);
        return true;
    }
    if (command.command_class == class_guest_offloads && command.command == guest_offloads_set) {
        const auto bits = argument<std::uint64_t>(chain);
        // 5.1.6.5.6.2: none that were not negotiated.
        if ((negotiated_ & feature::ctrl_guest_offloads) == 0 || !bits ||
            (*bits & ~(negotiated_ & all_guest_offloads)) != 0)
            return false;
        driver_offloads_ = *bits;
        backend_.set_receive_offloads(guest_offloads(*bits));
        return true;
    }
    return false;
}

}  // namespace masu::net
