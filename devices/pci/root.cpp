// Decoding of configuration accesses, and which BAR is mapped where.
#include "devices/pci/root.hpp"

#include <algorithm>

namespace masu::pci {

namespace {

// The ID that Red Hat set aside for a host bridge that is nothing but that. An ID of real hardware
// (Intel's are popular) would invite the quirks that kernels keep for that hardware.
constexpr Identity host_bridge_identity{.vendor = 0x1b36, .device = 0x0008, .class_code = 0x060000};

constexpr std::uint32_t address_enable = 0x8000'0000;
constexpr std::uint32_t address_writable = 0x80ff'fffc;
constexpr std::uint64_t data_port = 4;

bool overlap(std::uint64_t a, std::uint64_t a_size, std::uint64_t b, std::uint64_t b_size) {
    return a < b ? b - a < a_size : a - b < b_size;
}

}  // namespace

Root::HostBridge::HostBridge() : config_(host_bridge_identity) {}

Root::Root(Bus& mmio, MemoryWindow window, Metrics& metrics, const Log& log)
    : mmio_(mmio),
      window_(window),
      log_(log.with_component("pci")),
      conflicts_(metrics.counter("pci", "bar_conflicts")) {
    slots_[0].function = &bridge_;
}

Root::~Root() {
    const std::lock_guard lock(mutex_);
    for (auto& slot : slots_)
        release(slot);
}

void Root::Ecam::read(std::uint64_t offset, std::span<std::byte> data) {
    std::ranges::fill(data, std::byte{0xff});
    if (offset >= ecam_bus_size)
        return;
    const std::lock_guard lock(root_.mutex_);
    root_.read_config(static_cast<unsigned>(offset >> 15), (offset >> 12) & 7,
                      static_cast<std::uint16_t>(offset & 0xfff), data);
}

void Root::Ecam::write(std::uint64_t offset, std::span<const std::byte> data) {
    if (offset >= ecam_bus_size)
        return;
    const std::lock_guard lock(root_.mutex_);
    root_.write_config(static_cast<unsigned>(offset >> 15), (offset >> 12) & 7,
                       static_cast<std::uint16_t>(offset & 0xfff), data);
}

// Only a whole doubleword at CF8 is CONFIG_ADDRESS; other accesses there are none of ours (Linux
// probes with a byte write to CFB, and a chipset has its reset control at CF9).
void Root::Ports::read(std::uint64_t offset, std::span<std::byte> data) {
    std::ranges::fill(data, std::byte{0xff});
    const std::lock_guard lock(root_.mutex_);
    const auto address = root_.state_.config_address;
    if (offset == 0 && data.size() == 4) {
        store_unaligned(data.data(), address);
        return;
    }
    if (offset < data_port || offset + data.size() > config_ports ||
        (address & address_enable) == 0 || ((address >> 16) & 0xff) != 0)
        return;
    root_.read_config((address >> 11) & 31, (address >> 8) & 7,
                      static_cast<std::uint16_t>((address & 0xfc) + (offset - data_port)), data);
}

void Root::Ports::write(std::uint64_t offset, std::span<const std::byte> data) {
    const std::lock_guard lock(root_.mutex_);
    if (offset == 0 && data.size() == 4) {
        root_.state_.config_address = load_unaligned<std::uint32_t>(data.data()) & address_writable;
        return;
    }
    const auto address = root_.state_.config_address;
    if (offset < data_port || offset + data.size() > config_ports ||
        (address & address_enable) == 0 || ((address >> 16) & 0xff) != 0)
        return;
    root_.write_config((address >> 11) & 31, (address >> 8) & 7,
                       static_cast<std::uint16_t>((address & 0xfc) + (offset - data_port)), data);
}

void Root::read_config(unsigned device, unsigned function, std::uint16_t offset,
                       std::span<std::byte> data) {
    auto* target = function == 0 ? slots_[device].function : nullptr;
    if (target != nullptr)
        target->read_config(offset, data);
}

void Root::write_config(unsigned device, unsigned function, std::uint16_t offset,
                        std::span<const std::byte> data) {
    auto* target = function == 0 ? slots_[device].function : nullptr;
    if (target == nullptr)
        return;
    target->write_config(offset, data);
    if (touches(offset, data.size(), reg::command, reg::status) ||
        touches(offset, data.size(), reg::bar0, reg::bars_end))
        update_mappings();
}

Result<unsigned> Root::add(Function& function, std::optional<unsigned> device) {
    const std::lock_guard lock(mutex_);
    if (!device) {
        const auto free = std::ranges::find(slots_, nullptr, &Slot::function);
        if (free == slots_.end())
            return fail("the PCI bus is full: it has room for {} devices", device_count - 1);
        device = static_cast<unsigned>(free - slots_.begin());
    }
    if (*device >= device_count || slots_[*device].function != nullptr)
        return fail("PCI device number {} is taken or does not exist", *device);
    slots_[*device].function = &function;
    if (auto assigned = assign_bars(function); !assigned) {
        slots_[*device] = {};
        return std::unexpected(std::move(assigned).error());
    }
    auto& config = function.config();
    config.set(reg::command, static_cast<std::uint16_t>(config.get<std::uint16_t>(reg::command) |
                                                        command::memory_space));
    update_mappings();
    return *device;
}

Result<> Root::put_back(Function& function, unsigned device) {
    const std::lock_guard lock(mutex_);
    if (device == 0 || device >= device_count || slots_[device].function != nullptr)
        return fail("PCI device number {} is taken or does not exist", device);
    slots_[device].function = &function;
    return {};
}

void Root::remove(unsigned device) {
    const std::lock_guard lock(mutex_);
    if (device == 0 || device >= device_count)
        return;
    release(slots_[device]);
    update_mappings();
}

void Root::release(Slot& slot) {
    if (slot.function == nullptr)
        return;
    for (unsigned bar = 0; bar < bar_count; ++bar) {
        auto& mapping = slot.bars[bar];
        if (mapping.mapped)
            mmio_.remove(*mapping.mapped);
        if (mapping.told)
            slot.function->bar_moved(bar, std::nullopt);
    }
    slot = {};
}

Result<> Root::assign_bars(Function& function) {
    auto& config = function.config();
    for (unsigned bar = 0; bar < bar_count; ++bar)
        config.set_bar_address(bar, 0);
    for (unsigned bar = 0; bar < bar_count; ++bar) {
        const auto size = config.bar_size(bar);
        if (size == 0)
            continue;
        const auto address = find_room(size);
        if (!address)
            return fail("no room for a PCI BAR of {} bytes between {:#x} and {:#x}", size,
                        window_.start, window_.end);
        config.set_bar_address(bar, *address);
    }
    return {};
}

// The lowest free, naturally aligned place, given where every BAR lies now.
std::optional<std::uint64_t> Root::find_room(std::uint64_t size) const {
    std::uint64_t start = align_up(window_.start, size);
    while (start < window_.end && size <= window_.end - start) {
        const auto end = end_of_overlap(start, size);
        if (!end)
            return start;
        start = align_up(*end, size);
    }
    return std::nullopt;
}

std::optional<std::uint64_t> Root::end_of_overlap(std::uint64_t start, std::uint64_t size) const {
    for (const auto& slot : slots_) {
        if (slot.function == nullptr)
            continue;
        const auto& config = slot.function->config();
        for (unsigned bar = 0; bar < bar_count; ++bar) {
            const auto bar_size = config.bar_size(bar);
            const auto address = config.bar_address(bar);
            if (bar_size != 0 && overlap(start, size, address, bar_size))
                return address + bar_size;
        }
    }
    return std::nullopt;
}

// Unmaps what has moved before it maps anything, so that two BARs may swap places, and tries again
// whatever could not be mapped before.
void Root::update_mappings() {
    const auto wanted = [](const Slot& slot, unsigned bar) -> std::optional<std::uint64_t> {
        const auto& config = slot.function->config();
        if (config.bar_size(bar) == 0 || !config.memory_enabled())
            return std::nullopt;
        return config.bar_address(bar);
    };
    for (auto& slot : slots_) {
        for (unsigned bar = 0; slot.function != nullptr && bar < bar_count; ++bar) {
            auto& mapped = slot.bars[bar].mapped;
            if (mapped && mapped != wanted(slot, bar)) {
                mmio_.remove(*mapped);
                mapped.reset();
            }
        }
    }
    for (auto& slot : slots_) {
        for (unsigned bar = 0; slot.function != nullptr && bar < bar_count; ++bar) {
            const auto address = wanted(slot, bar);
            if (!address)
                slot.bars[bar].refused.reset();
            else if (!slot.bars[bar].mapped)
                map(slot, bar, *address);
        }
    }
}

void Root::map(Slot& slot, unsigned bar, std::uint64_t address) {
    auto& function = *slot.function;
    auto& mapping = slot.bars[bar];
    const auto size = function.config().bar_size(bar);
    if (address < window_.start || address >= window_.end || size > window_.end - address)
        return refuse(mapping, function, bar, address, "outside the host bridge's window");
    auto* device = function.bar_device(bar);
    if (device == nullptr)
        return;
    if (const auto inserted = mmio_.insert(address, size, *device, "a PCI BAR"); !inserted)
        return refuse(mapping, function, bar, address, inserted.error().message);
    mapping.mapped = address;
    mapping.refused.reset();
    evict_idle(address, size);
    if (mapping.told != address) {
        mapping.told = address;
        function.bar_moved(bar, address);
    }
}

void Root::refuse(BarMapping& mapping, Function& function, unsigned bar, std::uint64_t address,
                  std::string_view why) {
    if (mapping.refused == address)
        return;
    mapping.refused = address;
    conflicts_.add();
    log_.guest_fault(
        "the guest put a BAR where it cannot be; it stays unmapped",
        {kv("bar", bar), kv("address", fmt::format("{:#x}", address)), kv("why", why)});
    if (mapping.told) {
        mapping.told.reset();
        function.bar_moved(bar, std::nullopt);
    }
}

// A BAR that decodes nowhere keeps what hangs on its last address (ioeventfds) until another BAR
// comes to lie there.
void Root::evict_idle(std::uint64_t start, std::uint64_t size) {
    for (auto& slot : slots_) {
        for (unsigned bar = 0; slot.function != nullptr && bar < bar_count; ++bar) {
            auto& mapping = slot.bars[bar];
            if (mapping.mapped || !mapping.told ||
                !overlap(start, size, *mapping.told, slot.function->config().bar_size(bar)))
                continue;
            mapping.told.reset();
            slot.function->bar_moved(bar, std::nullopt);
        }
    }
}

RootState Root::save() const {
    const std::lock_guard lock(mutex_);
    return state_;
}

void Root::restore(const RootState& state) {
    const std::lock_guard lock(mutex_);
    state_.config_address = state.config_address & address_writable;
    update_mappings();
}

}  // namespace masu::pci
