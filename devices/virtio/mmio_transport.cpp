// The registers of virtio-mmio, as a table in the order of the specification's (4.2.2, table 4.1).
#include "devices/virtio/mmio_transport.hpp"

#include <algorithm>
#include <array>

#include "base/bytes.hpp"

namespace masu::virtio {

namespace {

constexpr std::uint64_t config_offset = 0x100;
constexpr std::uint32_t magic = 0x74726976;   // "virt"
constexpr std::uint32_t vendor = 0x5553414d;  // "MASU"

// InterruptStatus bits.
constexpr std::uint32_t used_buffer = 1;
constexpr std::uint32_t configuration_change = 2;

}  // namespace

// Without `get` a register is write-only and reads 0; without `set` it is read-only and writes are
// ignored. Both run with the device's mutex held.
struct MmioTransport::Register {
    std::uint16_t offset;
    const char* name;
    std::uint32_t (*get)(MmioTransport&);
    void (*set)(MmioTransport&, std::uint32_t);
};

struct MmioTransport::Registers {
    using T = MmioTransport;
    using u32 = std::uint32_t;

    template <RingPart part>
    static void low(T& t, u32 v) {
        t.core_->set_queue_address_low(part, v);
    }
    template <RingPart part>
    static void high(T& t, u32 v) {
        t.core_->set_queue_address_high(part, v);
    }
    template <u32 value>
    static u32 constant(T&) {
        return value;
    }
    static void set_queue_ready(T& t, u32 v) {
        if (v == 1)
            t.core_->enable_queue();
        else if (v == 0)
            t.core_->disable_queue();
    }
    // Bits above the status byte do not exist; with one set, a write can be no reset.
    static void set_status(T& t, u32 v) {
        if (v <= 0xff)
            t.core_->set_status(static_cast<std::uint8_t>(v));
    }

    // clang-format off
    static constexpr std::array table{
        Register{0x000, "MagicValue",        constant<magic>, nullptr},
        Register{0x004, "Version",           constant<2>, nullptr},
        Register{0x008, "DeviceID",          [](T& t) -> u32 { return std::to_underlying(t.core_->device_id()); }, nullptr},
        Register{0x00c, "VendorID",          constant<vendor>, nullptr},
        Register{0x010, "DeviceFeatures",    [](T& t) { return t.core_->device_features(); }, nullptr},
        Register{0x014, "DeviceFeaturesSel", nullptr, [](T& t, u32 v) { t.core_->select_device_features(v); }},
        Register{0x020, "DriverFeatures",    nullptr, [](T& t, u32 v) { t.core_->set_driver_features(v); }},
        Register{0x024, "DriverFeaturesSel", nullptr, [](T& t, u32 v) { t.core_->select_driver_features(v); }},
        Register{0x030, "QueueSel",          nullptr, [](T& t, u32 v) { t.core_->select_queue(v); }},
        Register{0x034, "QueueSizeMax",      [](T& t) -> u32 { return t.core_->queue_max_size(); }, nullptr},
        Register{0x038, "QueueSize",         nullptr, [](T& t, u32 v) { t.core_->set_queue_size(v); }},
        Register{0x044, "QueueReady",        [](T& t) -> u32 { return t.core_->queue_enabled() ? 1 : 0; }, set_queue_ready},
        Register{0x050, "QueueNotify",       nullptr, nullptr},  // see write()
        Register{0x060, "InterruptStatus",   [](T& t) { return t.interrupt_status_; }, nullptr},
        Register{0x064, "InterruptACK",      nullptr, [](T& t, u32 v) { t.interrupt_status_ &= ~v; }},
        Register{0x070, "Status",            [](T& t) -> u32 { return t.core_->status(); }, set_status},
        Register{0x080, "QueueDescLow",      nullptr, low<RingPart::DescTable>},
        Register{0x084, "QueueDescHigh",     nullptr, high<RingPart::DescTable>},
        Register{0x090, "QueueDriverLow",    nullptr, low<RingPart::Avail>},
        Register{0x094, "QueueDriverHigh",   nullptr, high<RingPart::Avail>},
        Register{0x0a0, "QueueDeviceLow",    nullptr, low<RingPart::Used>},
        Register{0x0a4, "QueueDeviceHigh",   nullptr, high<RingPart::Used>},
        // A region whose length is all ones does not exist (4.2.2.1); there are none.
        Register{0x0ac, "SHMSel",            nullptr, nullptr},
        Register{0x0b0, "SHMLenLow",         constant<~u32{0}>, nullptr},
        Register{0x0b4, "SHMLenHigh",        constant<~u32{0}>, nullptr},
        Register{0x0b8, "SHMBaseLow",        constant<~u32{0}>, nullptr},
        Register{0x0bc, "SHMBaseHigh",       constant<~u32{0}>, nullptr},
        // VIRTIO_F_RING_RESET is not offered.
        Register{0x0c0, "QueueReset",        constant<0>, nullptr},
        Register{0x0fc, "ConfigGeneration",  [](T& t) { return t.core_->config_generation(); }, nullptr},
    };
    // clang-format on
};

Result<std::unique_ptr<MmioTransport>> MmioTransport::create(std::string_view id, Device& device,
                                                             const GuestMemory& memory,
                                                             EventLoop& loop, InterruptLine& line,
                                                             Metrics& metrics, const Log& log) {
    std::unique_ptr<MmioTransport> transport(new MmioTransport(line));
    transport->core_ =
        TRY(TransportCore::create(id, device, memory, loop, *transport, metrics, log));
    return transport;
}

const MmioTransport::Register* MmioTransport::find(std::uint64_t offset) noexcept {
    const auto found = std::ranges::lower_bound(Registers::table, offset, {}, &Register::offset);
    return found != Registers::table.end() && found->offset == offset ? &*found : nullptr;
}

void MmioTransport::read(std::uint64_t offset, std::span<std::byte> data) {
    const std::lock_guard lock(core_->mutex());
    if (offset >= config_offset)
        return core_->read_config(offset - config_offset, data);
    std::uint32_t value = 0;
    const auto* reg = find(offset);
    if (reg != nullptr && reg->get != nullptr && data.size() == sizeof value)
        value = reg->get(*this);
    std::ranges::fill(data, std::byte{0});
    if (data.size() == sizeof value)
        store_unaligned(data.data(), value);
}

void MmioTransport::write(std::uint64_t offset, std::span<const std::byte> data) {
    // Without the lock: a vCPU need not wait for a busy device to say that there is more to do.
    if (offset == notify_offset && data.size() == sizeof(std::uint32_t))
        return core_->notify(load_unaligned<std::uint32_t>(data.data()));
    const std::lock_guard lock(core_->mutex());
    if (offset >= config_offset)
        return core_->write_config(offset - config_offset, data);
    if (data.size() != sizeof(std::uint32_t))
        return;
    const auto* reg = find(offset);
    if (reg != nullptr && reg->set != nullptr)
        reg->set(*this, load_unaligned<std::uint32_t>(data.data()));
}

void MmioTransport::queue_interrupt(std::uint16_t /*queue*/) {
    raise(used_buffer);
}

void MmioTransport::config_interrupt() {
    raise(configuration_change);
}

void MmioTransport::raise(std::uint32_t bit) {
    interrupt_status_ |= bit;
    line_.set(true);
    line_.set(false);
}

Result<SavedMmioWindow> MmioTransport::save() {
    SavedMmioWindow state;
    state.core = TRY(core_->save());
    const std::lock_guard lock(core_->mutex());
    state.interrupt_status = interrupt_status_;
    return state;
}

Result<> MmioTransport::restore(const SavedMmioWindow& state) {
    TRY(core_->restore(state.core));
    const std::lock_guard lock(core_->mutex());
    interrupt_status_ = state.interrupt_status & (used_buffer | configuration_change);
    return {};
}

}  // namespace masu::virtio
