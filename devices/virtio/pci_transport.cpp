// Registers, capabilities and interrupts of virtio-pci.
#include "devices/virtio/pci_transport.hpp"

#include <algorithm>
#include <array>

#include "base/bytes.hpp"

namespace masu::virtio {

namespace {

using pci_layout::bar_size;

constexpr std::uint16_t vendor_id = 0x1af4;
constexpr std::uint16_t modern_device_base = 0x1040;

constexpr std::uint8_t isr_queue = 1;
constexpr std::uint8_t isr_config = 2;

// cfg_type (4.1.4).
enum class CfgType : std::uint8_t { Common = 1, Notify = 2, Isr = 3, Device = 4, Pci = 5 };

// struct virtio_pci_cap behind cap_vndr and cap_next.
struct CapabilityBody {
    std::uint8_t cap_len = 16;
    CfgType cfg_type{};
    std::uint8_t bar = pci_layout::bar;
    std::uint8_t id = 0;
    std::uint16_t padding = 0;
    std::uint32_t offset = 0;
    std::uint32_t length = 0;
} __attribute__((packed));
static_assert(sizeof(CapabilityBody) == 14);

// struct virtio_pci_notify_cap and struct virtio_pci_cfg_cap: one more word, the multiplier or
// pci_cfg_data.
struct LongCapabilityBody {
    CapabilityBody body;
    std::uint32_t word = 0;
} __attribute__((packed));
static_assert(sizeof(LongCapabilityBody) == 18);

// Offsets within the PCI_CFG capability.
constexpr std::uint16_t cap_bar = 4;
constexpr std::uint16_t cap_offset = 8;
constexpr std::uint16_t cap_length = 12;
constexpr std::uint16_t cap_data = 16;
constexpr std::uint16_t cap_end = 20;

std::uint32_t class_of(DeviceId id) noexcept {
    switch (id) {
        case DeviceId::Net:
            return 0x020000;  // Ethernet controller
        case DeviceId::Block:
            return 0x018000;  // other mass storage controller
        case DeviceId::Vsock:
            return 0x028000;  // other network controller
        case DeviceId::Entropy:
        case DeviceId::Balloon:
            break;
    }
    return 0x00ff00;  // fits no class
}

pci::Identity identity_of(DeviceId id) noexcept {
    const auto device = static_cast<std::uint16_t>(modern_device_base + std::to_underlying(id));
    return {.vendor = vendor_id,
            .device = device,
            .class_code = class_of(id),
            .revision = 1,
            .subsystem_vendor = vendor_id,
            .subsystem = device};
}

// Whether [offset, offset + size) lies in the structure.
bool within(std::uint64_t offset, std::size_t size, std::uint32_t start, std::uint64_t length) {
    return offset >= start && offset - start < length && size <= length - (offset - start);
}

}  // namespace

// One line of struct virtio_pci_common_cfg. A null `write` makes it read-only for the driver.
struct PciTransport::CommonRegister {
    std::uint8_t offset;
    std::uint8_t size;
    std::uint64_t (*read)(PciTransport&);
    void (*write)(PciTransport&, std::uint64_t);
};

// 4.1.4.3, line by line. The driver reaches 64-bit fields as two 32-bit ones (4.1.3.1); a 64-bit
// access is taken too.
std::span<const PciTransport::CommonRegister> PciTransport::common_registers() noexcept {
    using T = PciTransport;
    using V = std::uint64_t;
    using u16 = std::uint16_t;
    using u32 = std::uint32_t;
    static constexpr CommonRegister table[] = {
        // device_feature_select
        {0, 4, [](T& t) -> V { return t.core_->selected_device_features(); },
         [](T& t, V v) { t.core_->select_device_features(static_cast<u32>(v)); }},
        // device_feature
        {4, 4, [](T& t) -> V { return t.core_->device_features(); }, nullptr},
        // driver_feature_select
        {8, 4, [](T& t) -> V { return t.core_->selected_driver_features(); },
         [](T& t, V v) { t.core_->select_driver_features(static_cast<u32>(v)); }},
        // driver_feature
        {12, 4, [](T& t) -> V { return t.core_->driver_features(); },
         [](T& t, V v) { t.core_->set_driver_features(static_cast<u32>(v)); }},
        // config_msix_vector
        {16, 2, [](T& t) -> V { return t.state_.config_vector; },
         [](T& t, V v) { t.state_.config_vector = t.valid_vector(v); }},
        // num_queues
        {18, 2, [](T& t) -> V { return t.core_->queue_count(); }, nullptr},
        // device_status
        {20, 1, [](T& t) -> V { return t.core_->status(); },
         [](T& t, V v) { t.core_->set_status(static_cast<std::uint8_t>(v)); }},
        // config_generation
        {21, 1, [](T& t) -> V { return t.core_->config_generation() & 0xff; }, nullptr},
        // queue_select
        {22, 2, [](T& t) -> V { return t.core_->selected_queue(); },
         [](T& t, V v) { t.core_->select_queue(static_cast<u16>(v)); }},
        // queue_size
        {24, 2, [](T& t) -> V { return t.core_->queue_size(); },
         [](T& t, V v) { t.core_->set_queue_size(static_cast<u16>(v)); }},
        // queue_msix_vector
        {26, 2, [](T& t) -> V { return t.queue_vector(); },
         [](T& t, V v) { t.set_queue_vector(v); }},
        // queue_enable: the driver never writes 0
        {28, 2, [](T& t) -> V { return t.core_->queue_enabled() ? 1 : 0; },
         [](T& t, V v) {
             if (v == 1)
                 t.core_->enable_queue();
         }},
        // queue_notify_off
        {30, 2,
         [](T& t) -> V {
             const auto queue = t.core_->selected_queue();
             return queue < t.core_->queue_count() ? queue : 0;
         },
         nullptr},
        // queue_desc
        {32, 8, [](T& t) -> V { return t.core_->queue_address(RingPart::DescTable); },
         [](T& t, V v) { t.core_->set_queue_address(RingPart::DescTable, v); }},
        // queue_driver
        {40, 8, [](T& t) -> V { return t.core_->queue_address(RingPart::Avail); },
         [](T& t, V v) { t.core_->set_queue_address(RingPart::Avail, v); }},
        // queue_device
        {48, 8, [](T& t) -> V { return t.core_->queue_address(RingPart::Used); },
         [](T& t, V v) { t.core_->set_queue_address(RingPart::Used, v); }},
        // queue_notify_data and queue_reset: of features that are not offered
        {56, 2, [](T&) -> V { return 0; }, nullptr},
        {58, 2, [](T&) -> V { return 0; }, nullptr},
    };
    return table;
}

PciTransport::PciTransport(Device& device, MsiBank& bank, IoEventRegistrar* io_events,
                           const Log& log)
    : log_(log.with_component("virtio-pci")),
      io_events_(io_events),
      io_event_added_(device.queue_sizes().size()),
      config_(identity_of(device.id())),
      msix_(bank, vectors_for(device)) {
    state_.queue_vectors.assign(device.queue_sizes().size(), no_vector);
}

Result<std::unique_ptr<PciTransport>> PciTransport::create(std::string_view id, Device& device,
                                                           const GuestMemory& memory,
                                                           EventLoop& loop, MsiBank& bank,
                                                           IoEventRegistrar* io_events,
                                                           Metrics& metrics, const Log& log) {
    if (device.queue_sizes().size() > pci_layout::queues_max)
        return fail("{}: {} queues are more than the {} a virtio-pci device can have", id,
                    device.queue_sizes().size(), pci_layout::queues_max);
    std::unique_ptr<PciTransport> transport(new PciTransport(device, bank, io_events, log));
    transport->core_ =
        TRY(TransportCore::create(id, device, memory, loop, *transport, metrics, log));
    TRY(transport->add_capabilities());
    return transport;
}

PciTransport::~PciTransport() {
    remove_io_events();
}

Result<> PciTransport::add_capabilities() {
    using namespace pci_layout;
    const auto add = [this](const auto& body) -> Result<> {
        auto added = config_.add_capability(pci::capability::vendor_specific, as_bytes_of(body));
        if (!added)
            return std::unexpected(std::move(added).error());
        return {};
    };
    TRY(config_.add_bar(bar, pci::BarKind::Memory32, pci_layout::bar_size));
    TRY(msix_.add_capability(config_,
                             {.bar = bar, .table_offset = msix_table, .pba_offset = msix_pba}));
    (void)TRY(
        add(CapabilityBody{.cfg_type = CfgType::Common, .offset = common, .length = common_size}));
    (void)TRY(add(CapabilityBody{.cfg_type = CfgType::Isr, .offset = isr, .length = isr_size}));
    (void)TRY(
        add(CapabilityBody{.cfg_type = CfgType::Device, .offset = device, .length = device_size}));
    (void)TRY(add(LongCapabilityBody{
        .body = {.cap_len = 20,
                 .cfg_type = CfgType::Notify,
                 .offset = pci_layout::notify,
                 .length = notify_multiplier * std::max<std::uint32_t>(core_->queue_count(), 1)},
        .word = notify_multiplier}));
    const LongCapabilityBody pci_cfg{.body = {.cap_len = 20, .cfg_type = CfgType::Pci}};
    const LongCapabilityBody writable{.body = {.cap_len = 0,
                                               .cfg_type = CfgType{0},
                                               .bar = 0xff,
                                               .offset = 0xffff'ffff,
                                               .length = 0xffff'ffff},
                                      .word = 0xffff'ffff};
    pci_cfg_capability_ = TRY(config_.add_capability(pci::capability::vendor_specific,
                                                     as_bytes_of(pci_cfg), as_bytes_of(writable)));
    return {};
}

// Configuration space: MSI-X's Message Control and the PCI_CFG window act; the rest is memory.

std::optional<PciTransport::Window> PciTransport::window() const noexcept {
    const auto field = [this](std::uint16_t offset) {
        return static_cast<std::uint16_t>(pci_cfg_capability_ + offset);
    };
    const auto offset = config_.get<std::uint32_t>(field(cap_offset));
    const auto length = config_.get<std::uint32_t>(field(cap_length));
    // 4.1.4.9.2: lengths 1, 2 and 4, at a multiple of the length, within the BAR.
    if (config_.get<std::uint8_t>(field(cap_bar)) != pci_layout::bar ||
        (length != 1 && length != 2 && length != 4) || !is_aligned(offset, length) ||
        !within(offset, length, 0, bar_size))
        return std::nullopt;
    return Window{.offset = offset, .length = length};
}

void PciTransport::read_config(std::uint16_t offset, std::span<std::byte> data) {
    const auto data_start = static_cast<std::uint16_t>(pci_cfg_capability_ + cap_data);
    const auto data_end = static_cast<std::uint16_t>(pci_cfg_capability_ + cap_end);
    if (pci::touches(offset, data.size(), data_start, data_end)) {
        if (const auto at = window()) {
            std::array<std::byte, 4> bytes;
            bytes.fill(std::byte{0xff});
            read(at->offset, std::span(bytes).first(at->length));
            for (std::uint16_t i = 0; i < at->length; ++i)
                config_.set(static_cast<std::uint16_t>(data_start + i), bytes[i]);
        }
    }
    config_.read(offset, data);
}

void PciTransport::write_config(std::uint16_t offset, std::span<const std::byte> data) {
    config_.write(offset, data);
    msix_.config_written(config_);
    const auto data_start = static_cast<std::uint16_t>(pci_cfg_capability_ + cap_data);
    const auto data_end = static_cast<std::uint16_t>(pci_cfg_capability_ + cap_end);
    if (!pci::touches(offset, data.size(), data_start, data_end))
        return;
    if (const auto at = window()) {
        const auto bytes = config_.get<std::array<std::byte, 4>>(data_start);
        write(at->offset, std::span(bytes).first(at->length));
    }
}

void PciTransport::bar_moved(unsigned, std::optional<std::uint64_t> address) {
    remove_io_events();
    if (address)
        add_io_events(*address);
}

void PciTransport::add_io_events(std::uint64_t bar_address) {
    if (io_events_ == nullptr)
        return;
    io_events_base_ = bar_address + pci_layout::notify;
    for (std::uint16_t queue = 0; queue < core_->queue_count(); ++queue) {
        const auto added = io_events_->add(io_events_base_ + queue * pci_layout::notify_multiplier,
                                           core_->notify_event(queue));
        io_event_added_[queue] = added.has_value();
        if (!added)
            log_.guest_fault("a queue's notifications take the slow way",
                             {kv("queue", queue), kv("why", added.error().message)});
    }
}

void PciTransport::remove_io_events() noexcept {
    for (std::uint16_t queue = 0; queue < io_event_added_.size(); ++queue) {
        if (!io_event_added_[queue])
            continue;
        io_events_->remove(io_events_base_ + queue * pci_layout::notify_multiplier,
                           core_->notify_event(queue));
        io_event_added_[queue] = false;
    }
}

// BAR 0.

void PciTransport::read(std::uint64_t offset, std::span<std::byte> data) {
    using namespace pci_layout;
    if (within(offset, data.size(), common, common_size)) {
        const std::lock_guard lock(core_->mutex());
        read_common(offset - common, data);
    } else if (within(offset, data.size(), isr, isr_size)) {
        const std::lock_guard lock(core_->mutex());
        data[0] = std::byte{std::exchange(state_.isr, std::uint8_t{0})};
    } else if (within(offset, data.size(), device, device_size)) {
        const std::lock_guard lock(core_->mutex());
        core_->read_config(offset - device, data);
    } else if (within(offset, data.size(), msix_table, msix_pba - msix_table)) {
        msix_.read_table(offset - msix_table, data);
    } else if (within(offset, data.size(), msix_pba, pci_layout::bar_size - msix_pba)) {
        msix_.read_pba(offset - msix_pba, data);
    }
}

void PciTransport::write(std::uint64_t offset, std::span<const std::byte> data) {
    using namespace pci_layout;
    if (within(offset, data.size(), pci_layout::notify, msix_table - pci_layout::notify)) {
        notify(offset - pci_layout::notify);
    } else if (within(offset, data.size(), common, common_size)) {
        const std::lock_guard lock(core_->mutex());
        write_common(offset - common, data);
    } else if (within(offset, data.size(), device, device_size)) {
        const std::lock_guard lock(core_->mutex());
        core_->write_config(offset - device, data);
    } else if (within(offset, data.size(), msix_table, msix_pba - msix_table)) {
        msix_.write_table(offset - msix_table, data);
    }
}

// The address names the queue, as it does for an ioeventfd; what is written there is the same
// number without NOTIFICATION_DATA (4.1.5.2).
void PciTransport::notify(std::uint64_t offset) {
    if (is_aligned(offset, pci_layout::notify_multiplier))
        core_->notify(static_cast<std::uint32_t>(offset / pci_layout::notify_multiplier));
}

const PciTransport::CommonRegister* PciTransport::find_common(std::uint64_t offset) noexcept {
    for (const auto& line : common_registers())
        if (offset >= line.offset && offset - line.offset < line.size)
            return &line;
    return nullptr;
}

void PciTransport::read_common(std::uint64_t offset, std::span<std::byte> data) {
    const auto* line = find_common(offset);
    if (line == nullptr)
        return;
    const std::uint64_t value = line->read(*this);
    if (offset == line->offset && data.size() == line->size)
        std::ranges::copy(as_bytes_of(value).first(data.size()), data.begin());
    else if (line->size == 8 && data.size() == 4 && is_aligned(offset, 4))
        store_unaligned(data.data(),
                        static_cast<std::uint32_t>(value >> (8 * (offset - line->offset))));
}

void PciTransport::write_common(std::uint64_t offset, std::span<const std::byte> data) {
    const auto* line = find_common(offset);
    if (line == nullptr || line->write == nullptr)
        return;
    std::uint64_t value = 0;
    if (offset == line->offset && data.size() == line->size) {
        std::memcpy(&value, data.data(), data.size());
    } else if (line->size == 8 && data.size() == 4 && is_aligned(offset, 4)) {
        const unsigned shift = offset == line->offset ? 0 : 32;
        value = line->read(*this) & ~(0xffff'ffffULL << shift);
        value |= std::uint64_t{load_unaligned<std::uint32_t>(data.data())} << shift;
    } else {
        return;
    }
    line->write(*this, value);
}

std::uint16_t PciTransport::queue_vector() const noexcept {
    const auto queue = core_->selected_queue();
    return queue < state_.queue_vectors.size() ? state_.queue_vectors[queue] : no_vector;
}

void PciTransport::set_queue_vector(std::uint64_t vector) noexcept {
    const auto queue = core_->selected_queue();
    if (queue < state_.queue_vectors.size())
        state_.queue_vectors[queue] = valid_vector(vector);
}

// 4.1.5.1.2.2: a vector that cannot be had reads back as NO_VECTOR.
std::uint16_t PciTransport::valid_vector(std::uint64_t vector) const noexcept {
    return vector < msix_.vectors() ? static_cast<std::uint16_t>(vector) : no_vector;
}

void PciTransport::queue_interrupt(std::uint16_t queue) {
    state_.isr |= isr_queue;
    msix_.signal(state_.queue_vectors[queue]);
}

void PciTransport::config_interrupt() {
    state_.isr |= isr_config;
    msix_.signal(state_.config_vector);
}

void PciTransport::reset() {
    state_.config_vector = no_vector;
    std::ranges::fill(state_.queue_vectors, no_vector);
    state_.isr = 0;
}

PciTransportState PciTransport::save() {
    const std::lock_guard lock(core_->mutex());
    return state_;
}

Result<> PciTransport::restore(const PciTransportState& state) {
    if (state.queue_vectors.size() != state_.queue_vectors.size())
        return fail("the saved virtio-pci device has {} queues, this one {}",
                    state.queue_vectors.size(), state_.queue_vectors.size());
    const std::lock_guard lock(core_->mutex());
    state_.config_vector = valid_vector(state.config_vector);
    std::ranges::transform(state.queue_vectors, state_.queue_vectors.begin(),
                           [this](std::uint16_t vector) { return valid_vector(vector); });
    state_.isr = state.isr & (isr_queue | isr_config);
    return {};
}

Result<SavedPciFunction> PciTransport::save_function() {
    SavedPciFunction saved;
    // The device comes to rest first: what it completes on the way interrupts.
    saved.core = TRY(core_->save());
    auto state = save();
    saved.config_vector = state.config_vector;
    saved.queue_vectors = std::move(state.queue_vectors);
    saved.isr = state.isr;
    saved.msix = msix_.save();
    saved.config = config_.save();
    return saved;
}

Result<> PciTransport::restore_function(const SavedPciFunction& state) {
    TRY(core_->restore(state.core));
    TRY(restore({.config_vector = state.config_vector,
                 .queue_vectors = state.queue_vectors,
                 .isr = state.isr}));
    config_.restore(state.config);
    return msix_.restore(state.msix);
}

}  // namespace masu::virtio
