// virtio-vsock: what a snapshot holds of it, and what the guest is told where one is restored. No
// connection is: its other end is a program of the host that was.
#include <algorithm>

#include "base/bytes.hpp"
#include "base/plain_data.hpp"
#include "devices/vsock/virtio_vsock.hpp"

namespace masu::vsock {
namespace {

struct SavedVsock {
    std::uint32_t guest_cid = 0;
    // So that no connection gets the ports of one that the guest remembers.
    std::uint32_t next_host_port = 0;
    std::uint64_t reserved = 0;
};
static_assert(PlainData<SavedVsock> && sizeof(SavedVsock) == 16);

}  // namespace

Result<virtio::SavedDevice> VirtioVsock::save() {
    virtio::SavedDevice saved;
    if (driver_ != nullptr)
        for (const auto* queue : {&rx_, &tx_, &event_})
            saved.queues.push_back(*queue ? std::optional((*queue)->position()) : std::nullopt);
    PlainWriter writer;
    writer.put(SavedVsock{
        .guest_cid = options_.guest_cid, .next_host_port = next_host_port_, .reserved = 0});
    saved.own = std::move(writer).take();
    return saved;
}

Result<> VirtioVsock::restore(std::span<const std::byte> own) {
    PlainReader reader(own, "vsock");
    const auto saved = reader.get<SavedVsock>();
    TRY(reader.finish());
    if (saved.guest_cid != options_.guest_cid)
        return fail("the guest has CID {} in the snapshot's state and {} in its configuration",
                    saved.guest_cid, options_.guest_cid);
    if (saved.next_host_port < first_host_port || saved.next_host_port >= end_of_host_ports ||
        saved.reserved != 0)
        return fail("vsock: the snapshot holds state that this version does not know");
    next_host_port_ = saved.next_host_port;
    restored_ = true;
    return {};
}

void VirtioVsock::arrive() {
    const std::lock_guard lock(mutex());
    restored_ = false;  // of a machine that was saved before its driver came
    if (driver_ == nullptr || faulted_ || phase_ != Phase::Restored)
        return;
    phase_ = Phase::Resetting;
    reset_deadline_ = clock_.now() + options_.reset_timeout;
    arm(options_.reset_timeout);
    if (event_)
        tell_reset();
    else
        resume();
}

// Into the first event buffer. The driver puts it back when it has dealt with the event, which is
// how we know that it has.
void VirtioVsock::tell_reset() {
    std::vector<virtio::Chain> chains;
    while (true) {
        auto popped = event_->pop();
        if (!popped)
            return fault(virtio::to_string(popped.error()));
        if (*popped)
            chains.push_back(std::move(**popped));
        else if (!chains.empty() || !event_->enable_notifications())
            break;
    }
    if (chains.empty())
        return;
    while (chains.size() > 1) {
        event_->put_back(std::move(chains.back()));
        chains.pop_back();
        ++events_left_;
    }
    const auto written = chains.front().write(0, as_bytes_of(event_transport_reset));
    event_->complete(std::move(chains.front()), static_cast<std::uint32_t>(written));
    if (written < sizeof event_transport_reset)
        return fault("a vsock event buffer has no room for an event");
    event_sent_ = true;
    if (event_->needs_interrupt())
        driver_->interrupt_queue(static_cast<std::uint16_t>(QueueIndex::Event));
    look_whether_reset();
}

void VirtioVsock::look_whether_reset() {
    if (phase_ != Phase::Resetting || !event_)
        return;
    if (!event_sent_)
        tell_reset();
    else if (event_->enable_notifications_beyond(events_left_))
        resume();
}

// Packets the guest made before it heard of the reset get their answers now.
void VirtioVsock::resume() {
    phase_ = Phase::Running;
    tx_pending_ = true;
    rx_waiting_ = false;
    serve();
}

}  // namespace masu::vsock
