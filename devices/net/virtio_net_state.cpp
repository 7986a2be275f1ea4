// virtio-net: what a snapshot holds of it. Frames under way and the connections of the monitor's
// own services are not part of it: a network may lose packets.
#include <algorithm>
#include <array>

#include "base/plain_data.hpp"
#include "devices/net/virtio_net.hpp"

namespace masu::net {
namespace {

struct SavedNet {
    std::uint64_t guest_offloads = 0;  // feature bits, as of VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET
    std::uint16_t active_pairs = 0;    // 0: no driver
    std::array<std::uint16_t, 3> reserved{};
};
static_assert(PlainData<SavedNet> && sizeof(SavedNet) == 16);
static_assert(offsetof(SavedNet, active_pairs) == 8);

}  // namespace

Result<virtio::SavedDevice> VirtioNet::save() {
    virtio::SavedDevice saved;
    SavedNet own;
    if (driver_ != nullptr) {
        own.guest_offloads = driver_offloads_;
        own.active_pairs = static_cast<std::uint16_t>(active_pairs_);
        saved.queues.resize(queue_sizes_.size());
        const auto keep = [&](std::size_t index, const std::optional<virtio::Queue>& queue) {
            if (queue && index < saved.queues.size())
                saved.queues[index] = queue->position();
        };
        for (std::size_t i = 0; i < pairs_.size(); ++i) {
            keep(2 * i, pairs_[i].rx);
            keep(2 * i + 1, pairs_[i].tx);
        }
        keep(control_index(), control_);
    }
    PlainWriter writer;
    writer.put(own);
    saved.own = std::move(writer).take();
    return saved;
}

Result<> VirtioNet::restore(std::span<const std::byte> own) {
    PlainReader reader(own, "interface " + id_);
    const auto saved = reader.get<SavedNet>();
    TRY(reader.finish());
    if (saved.active_pairs > pairs_.size())
        return fail(
            "interface {} uses {} queue pairs in the snapshot and has {} here: give it a "
            "backend of as many",
            id_, saved.active_pairs, pairs_.size());
    if ((saved.guest_offloads & ~guest_features(backend_.offloads())) != 0)
        return fail("interface {} was saved with offloads that its backend does not have here",
                    id_);
    if (std::ranges::any_of(saved.reserved, [](auto value) { return value != 0; }))
        return fail("interface {}: the snapshot holds state that this version does not know", id_);
    restored_.reset();
    if (saved.active_pairs != 0)
        restored_ = {.guest_offloads = saved.guest_offloads, .active_pairs = saved.active_pairs};
    return {};
}

// The snapshot may be anyone's: a pair counts only with both its queues, an offload only when
// negotiated.
void VirtioNet::resume_restored() {
    const auto restored = *std::exchange(restored_, std::nullopt);
    driver_offloads_ = restored.guest_offloads & negotiated_;
    backend_.set_receive_offloads(guest_offloads(driver_offloads_));
    const auto whole =
        std::ranges::find_if(pairs_, [](const Pair& pair) { return !pair.rx || !pair.tx; });
    const auto usable = static_cast<unsigned>(whole - pairs_.begin());
    set_active_pairs(std::clamp(restored.active_pairs, 1U, std::max(usable, 1U)));
}

void VirtioNet::arrive(Arrival arrival, Nanoseconds pause) {
    const std::lock_guard lock(mutex());
    if (driver_ == nullptr || faulted_)
        return;
    if (arrival == Arrival::NewAddress && (negotiated_ & feature::status) != 0) {
        cut_until_ = clock_.now() + readdress_limit;
        cut_seen_ = false;
        cut_pause_ = pause;
        cut_timer_->arm(pause);
    } else {
        announce_ = (negotiated_ & feature::guest_announce) != 0;
    }
    for (std::size_t i = 0; i < pairs_.size(); ++i)
        watch_for(i);
    // Also for a driver that knows of neither: the link may have been down where it was saved.
    driver_->interrupt_config();
}

// The pause counts from when the driver saw the link down, found out at the next turn of the timer.
void VirtioNet::on_cut_timer() {
    if (!cut_until_ || driver_ == nullptr)
        return;
    const auto now = clock_.now();
    if (std::exchange(cut_seen_, false))
        cut_until_ = std::min(*cut_until_, now + cut_pause_);
    if (now < *cut_until_) {
        cut_timer_->arm(std::min(cut_pause_, *cut_until_ - now));
        return;
    }
    cut_until_.reset();
    announce_ = (negotiated_ & feature::guest_announce) != 0;
    for (std::size_t i = 0; i < pairs_.size(); ++i)
        watch_for(i);
    driver_->interrupt_config();
}

}  // namespace masu::net
