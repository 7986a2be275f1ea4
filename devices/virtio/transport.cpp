// The state machine behind both transports' registers (virtio 1.2, 2.1, 2.2, 3.1).
#include "devices/virtio/transport.hpp"

#include <sys/epoll.h>

#include <algorithm>
#include <bit>
#include <optional>

namespace masu::virtio {

namespace {

constexpr std::uint32_t window_of(std::uint64_t features, std::uint32_t window) noexcept {
    return window < 2 ? static_cast<std::uint32_t>(features >> (32 * window)) : 0;
}

GuestAddress& part_of(QueueConfig& config, RingPart part) noexcept {
    switch (part) {
        case RingPart::DescTable:
            return config.desc_table;
        case RingPart::Avail:
            return config.avail;
        case RingPart::Used:
            break;
    }
    return config.used;
}

}  // namespace

TransportCore::TransportCore(std::string_view id, Device& device, const GuestMemory& memory,
                             InterruptSink& interrupts, Metrics& metrics, const Log& log)
    : id_(id),
      device_(device),
      memory_(memory),
      interrupts_(interrupts),
      log_(log.with_component("virtio")),
      faults_(metrics.counter("virtio_" + id_, "faults")),
      activations_(metrics.counter("virtio_" + id_, "activations")),
      notifications_(metrics.counter("virtio_" + id_, "notifications")),
      offered_(device.features() | feature_version_1 | feature_indirect_desc | feature_event_idx) {}

Result<std::unique_ptr<TransportCore>> TransportCore::create(std::string_view id, Device& device,
                                                             const GuestMemory& memory,
                                                             EventLoop& loop,
                                                             InterruptSink& interrupts,
                                                             Metrics& metrics, const Log& log) {
    std::unique_ptr<TransportCore> core(
        new TransportCore(id, device, memory, interrupts, metrics, log));
    for (const std::uint16_t size : device.queue_sizes()) {
        auto event = EventFd::create();
        if (!event)
            return in_context(core->id_, event.error());
        const auto index = static_cast<std::uint16_t>(core->queues_.size());
        auto watch = loop.watch(event->fd(), EPOLLIN,
                                [raw = core.get(), index](auto) { raw->on_notified(index); });
        if (!watch)
            return in_context(core->id_, watch.error());
        core->queues_.push_back({.max_size = size,
                                 .config = {.size = size},
                                 .event = std::move(*event),
                                 .watch = std::move(*watch)});
    }
    return core;
}

TransportCore::~TransportCore() {
    const std::lock_guard lock(mutex());
    status_ = 0;
    stop_device();
}

std::uint32_t TransportCore::device_features() const noexcept {
    return window_of(offered_, device_window_);
}

std::uint32_t TransportCore::driver_features() const noexcept {
    return window_of(accepted_, driver_window_);
}

void TransportCore::set_driver_features(std::uint32_t bits) noexcept {
    if ((status_ & status::features_ok) != 0)
        return;
    if (driver_window_ >= 2) {
        accepted_unknown_ = accepted_unknown_ || bits != 0;
        return;
    }
    const unsigned shift = 32 * driver_window_;
    accepted_ = (accepted_ & ~(0xffff'ffffULL << shift)) | (std::uint64_t{bits} << shift);
}

bool TransportCore::acceptable_features() const noexcept {
    return (accepted_ & ~offered_) == 0 && (accepted_ & feature_version_1) != 0 &&
           !accepted_unknown_;
}

void TransportCore::set_status(std::uint8_t value) {
    if (value == 0) {
        reset();
        return;
    }
    constexpr std::uint8_t drivers_bits = status::acknowledge | status::driver | status::driver_ok |
                                          status::features_ok | status::failed;
    auto added = static_cast<std::uint8_t>(value & drivers_bits & ~status_);
    // 2.2.2: the device leaves the bit clear, and the driver finds out by reading it back.
    if ((added & status::features_ok) != 0 && !acceptable_features())
        added = static_cast<std::uint8_t>(added & ~status::features_ok);
    status_ = static_cast<std::uint8_t>(status_ | added);
    if ((added & status::driver_ok) != 0)
        activate();
}

void TransportCore::activate() {
    if ((status_ & status::features_ok) == 0)
        return fault("DRIVER_OK without FEATURES_OK");
    if ((status_ & status::device_needs_reset) != 0)
        return;
    std::vector<std::optional<Queue>> running(queues_.size());
    for (std::size_t i = 0; i < queues_.size(); ++i) {
        if (!queues_[i].config.enabled)
            continue;
        auto queue = Queue::create(memory_, queues_[i].config, accepted_);
        if (!queue)
            return fault(to_string(queue.error()));
        running[i] = std::move(*queue);
    }
    activations_.add();
    active_ = true;
    device_.activate(
        {.memory = &memory_, .features = accepted_, .queues = std::move(running), .driver = this});
    // A driver may fill its queues before DRIVER_OK and take the device's attention for granted.
    notify_all();
}

void TransportCore::notify_all() const noexcept {
    for (const auto& slot : queues_)
        if (slot.config.enabled)
            slot.event.signal();
}

void TransportCore::stop_device() {
    if (!active_)
        return;
    device_.reset();
    active_ = false;
}

void TransportCore::reset() {
    // First, so that what the device completes while it drains interrupts nobody.
    status_ = 0;
    stop_device();
    device_window_ = 0;
    driver_window_ = 0;
    accepted_ = 0;
    accepted_unknown_ = false;
    selected_queue_ = 0;
    for (auto& slot : queues_)
        slot.config = {.size = slot.max_size};
    interrupts_.reset();
}

const TransportCore::QueueSlot* TransportCore::queue() const noexcept {
    return selected_queue_ < queues_.size() ? &queues_[selected_queue_] : nullptr;
}

TransportCore::QueueSlot* TransportCore::writable_queue() noexcept {
    if (selected_queue_ >= queues_.size() || queues_[selected_queue_].config.enabled)
        return nullptr;
    return &queues_[selected_queue_];
}

std::uint16_t TransportCore::queue_max_size() const noexcept {
    const auto* slot = queue();
    return slot != nullptr ? slot->max_size : std::uint16_t{0};
}

std::uint16_t TransportCore::queue_size() const noexcept {
    const auto* slot = queue();
    return slot != nullptr ? slot->config.size : std::uint16_t{0};
}

void TransportCore::set_queue_size(std::uint32_t size) noexcept {
    auto* slot = writable_queue();
    if (slot != nullptr && std::has_single_bit(size) && size <= slot->max_size)
        slot->config.size = static_cast<std::uint16_t>(size);
}

std::uint64_t TransportCore::queue_address(RingPart part) const noexcept {
    const auto* slot = queue();
    if (slot == nullptr)
        return 0;
    auto config = slot->config;
    return part_of(config, part).value;
}

void TransportCore::set_queue_address(RingPart part, std::uint64_t address) noexcept {
    if (auto* slot = writable_queue())
        part_of(slot->config, part).value = address;
}

void TransportCore::set_queue_address_low(RingPart part, std::uint32_t low) noexcept {
    set_queue_address(part, (queue_address(part) & ~0xffff'ffffULL) | low);
}

void TransportCore::set_queue_address_high(RingPart part, std::uint32_t high) noexcept {
    set_queue_address(part, (queue_address(part) & 0xffff'ffffULL) | (std::uint64_t{high} << 32));
}

bool TransportCore::queue_enabled() const noexcept {
    const auto* slot = queue();
    return slot != nullptr && slot->config.enabled;
}

void TransportCore::enable_queue() noexcept {
    auto* slot = writable_queue();
    if (slot != nullptr && (status_ & status::driver_ok) == 0)
        slot->config.enabled = true;
}

void TransportCore::disable_queue() {
    if (!queue_enabled())
        return;
    const bool was_active = active_;
    stop_device();
    queues_[selected_queue_].config.enabled = false;
    if (was_active)
        fault("a queue was taken from the running device");
}

void TransportCore::read_config(std::uint64_t offset, std::span<std::byte> data) const noexcept {
    std::ranges::fill(data, std::byte{0});
    device_.read_config(offset, data);
}

void TransportCore::write_config(std::uint64_t offset, std::span<const std::byte> data) noexcept {
    device_.write_config(offset, data);
}

void TransportCore::notify(std::uint32_t queue) noexcept {
    if (queue < queues_.size())
        queues_[queue].event.signal();
}

void TransportCore::on_notified(std::uint16_t queue) {
    const std::lock_guard lock(mutex());
    auto& slot = queues_[queue];
    slot.event.take();
    // The signal may be older than a reset: then there is nothing to do, or, if the driver has
    // activated the device again, a look at an empty queue.
    if (!active_ || !slot.config.enabled || (status_ & status::device_needs_reset) != 0)
        return;
    notifications_.add();
    device_.notify(queue);
}

void TransportCore::interrupt_queue(std::uint16_t queue) {
    if ((status_ & status::driver_ok) != 0 && queue < queues_.size())
        interrupts_.queue_interrupt(queue);
}

void TransportCore::interrupt_config() {
    ++config_generation_;
    if ((status_ & status::driver_ok) != 0)  // 2.1.2: not before
        interrupts_.config_interrupt();
}

void TransportCore::fault(std::string_view why) {
    faults_.add();
    log_.guest_fault("the driver broke the virtio rules; the device waits for a reset",
                     {kv("device", id_), kv("why", why)});
    const bool first = (status_ & status::device_needs_reset) == 0;
    status_ = static_cast<std::uint8_t>(status_ | status::device_needs_reset);
    // 2.1.2: a running driver is told by a configuration change notification.
    if (first)
        interrupt_config();
}

Result<CoreState> TransportCore::save() {
    const std::lock_guard lock(mutex());
    // A device that waits for its reset is not the snapshot's to bring back to life: the driver
    // has lost it already.
    const bool active = active_ && (status_ & status::device_needs_reset) == 0;
    SavedDevice device;
    if (auto saved = device_.save(); saved)
        device = std::move(*saved);
    else
        return in_context(id_, std::move(saved).error());
    CoreState state;
    state.registers = {.accepted = accepted_,
                       .device_window = device_window_,
                       .driver_window = driver_window_,
                       .config_generation = config_generation_,
                       .selected_queue = selected_queue_,
                       .status = status_,
                       .active = active,
                       .accepted_unknown = accepted_unknown_};
    state.device = std::move(device.own);
    for (std::size_t i = 0; i < queues_.size(); ++i) {
        const auto& config = queues_[i].config;
        SavedQueue queue{.desc_table = config.desc_table.value,
                         .avail = config.avail.value,
                         .used = config.used.value,
                         .size = config.size,
                         .enabled = config.enabled,
                         .running = 0,
                         .reserved = 0,
                         .position = {}};
        if (active && i < device.queues.size() && device.queues[i]) {
            queue.running = 1;
            queue.position = *device.queues[i];
        }
        state.queues.push_back(queue);
    }
    if (active)
        notify_all();
    return state;
}

Result<> TransportCore::check(const CoreState& state) const {
    const auto& registers = state.registers;
    if (state.queues.size() != queues_.size())
        return fail(
            "{} has {} queues in the snapshot and {} here: give it the settings it was "
            "saved with",
            id_, state.queues.size(), queues_.size());
    const bool features_ok = (registers.status & status::features_ok) != 0;
    if (features_ok && (registers.accepted & ~offered_) != 0)
        return fail("{}: the guest uses features {:#x}, of which this device does not offer {:#x}",
                    id_, registers.accepted, registers.accepted & ~offered_);
    const bool driver_ok = (registers.status & status::driver_ok) != 0;
    if (registers.active != 0 && !(features_ok && driver_ok))
        return fail("{} is active in the snapshot, but its status is {:#x}", id_, registers.status);
    for (std::size_t i = 0; i < queues_.size(); ++i) {
        const auto& queue = state.queues[i];
        if (!std::has_single_bit(queue.size) || queue.size > queues_[i].max_size)
            return fail("{}: queue {} has {} entries in the snapshot, and at most {} here", id_, i,
                        queue.size, queues_[i].max_size);
    }
    return {};
}

Result<std::vector<std::optional<Queue>>> TransportCore::restored_queues(
    const CoreState& state) const {
    std::vector<std::optional<Queue>> queues(queues_.size());
    for (std::size_t i = 0; i < queues_.size(); ++i) {
        const auto& saved = state.queues[i];
        if (saved.running == 0)
            continue;
        auto queue = Queue::create(memory_,
                                   {.size = saved.size,
                                    .enabled = true,
                                    .desc_table = {saved.desc_table},
                                    .avail = {saved.avail},
                                    .used = {saved.used}},
                                   state.registers.accepted);
        if (!queue)
            return fail("{}: queue {} of the snapshot: {}", id_, i, to_string(queue.error()));
        queue->set_position(saved.position);
        queues[i] = std::move(*queue);
    }
    return queues;
}

Result<> TransportCore::restore(const CoreState& state) {
    const std::lock_guard lock(mutex());
    TRY(check(state));
    const bool active = state.registers.active != 0;
    std::vector<std::optional<Queue>> queues;
    if (active)
        queues = TRY(restored_queues(state));
    TRY(device_.restore(state.device));
    const auto& registers = state.registers;
    status_ = registers.status;
    accepted_ = registers.accepted;
    accepted_unknown_ = registers.accepted_unknown != 0;
    device_window_ = registers.device_window;
    driver_window_ = registers.driver_window;
    config_generation_ = registers.config_generation;
    selected_queue_ = registers.selected_queue;
    for (std::size_t i = 0; i < queues_.size(); ++i) {
        const auto& saved = state.queues[i];
        queues_[i].config = {.size = saved.size,
                             .enabled = saved.enabled != 0,
                             .desc_table = {saved.desc_table},
                             .avail = {saved.avail},
                             .used = {saved.used}};
    }
    if (!active)
        return {};
    activations_.add();
    active_ = true;
    device_.activate(
        {.memory = &memory_, .features = accepted_, .queues = std::move(queues), .driver = this});
    notify_all();
    return {};
}

}  // namespace masu::virtio
