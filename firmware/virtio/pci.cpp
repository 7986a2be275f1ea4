#include "firmware/virtio/pci.hpp"

#include "firmware/platform/cpu.hpp"
#include "firmware/virtio/registers.hpp"

namespace masu::firmware::virtio {
namespace {

constexpr std::uint16_t vendor = 0x1af4;
constexpr int slots = 32;
constexpr std::uint16_t config_command = 0x04;
constexpr std::uint16_t config_status = 0x06;
constexpr std::uint16_t config_bar0 = 0x10;
constexpr std::uint16_t config_capabilities = 0x34;
constexpr std::uint16_t command_memory = 1 << 1;
constexpr std::uint16_t command_master = 1 << 2;
constexpr std::uint16_t status_capabilities = 1 << 4;
constexpr std::uint8_t capability_vendor = 9;

constexpr std::uint8_t status_acknowledge = 1;
constexpr std::uint8_t status_driver = 2;
constexpr std::uint8_t status_driver_ok = 4;
constexpr std::uint8_t status_features_ok = 8;
constexpr std::uint64_t feature_version_1 = 1ULL << 32;
constexpr int reset_patience = 100'000;

constinit std::uint64_t ecam_base = 0;

std::uint64_t config_address(int slot, std::uint16_t offset) noexcept {
    return ecam_base + (static_cast<std::uint64_t>(slot) << 15) + offset;
}
template <class T>
T config(int slot, std::uint16_t offset) noexcept {
    return cpu::mmio_read<T>(config_address(slot, offset));
}

std::uint64_t bar_address(int slot, std::uint8_t bar) noexcept {
    if (bar > 5)
        return 0;
    const auto offset = static_cast<std::uint16_t>(config_bar0 + bar * 4);
    const auto low = config<std::uint32_t>(slot, offset);
    if ((low & 1) != 0)
        return 0;  // an I/O BAR
    std::uint64_t address = low & ~0xfU;
    if ((low & 6) == 4 && bar < 5)
        address |= std::uint64_t{config<std::uint32_t>(slot, static_cast<std::uint16_t>(offset + 4))}
                   << 32;
    return address;
}

void read_capability(int slot, std::uint16_t at, Device& device) noexcept {
    enum CfgType : std::uint8_t { Common = 1, Notify = 2, Config = 4 };
    const auto type = config<std::uint8_t>(slot, static_cast<std::uint16_t>(at + 3));
    const auto bar = bar_address(slot, config<std::uint8_t>(slot, static_cast<std::uint16_t>(at + 4)));
    if (bar == 0)
        return;
    const auto address = bar + config<std::uint32_t>(slot, static_cast<std::uint16_t>(at + 8));
    if (type == Common && device.common == 0)
        device.common = address;
    if (type == Config && device.config == 0)
        device.config = address;
    if (type == Notify && device.notify == 0) {
        device.notify = address;
        device.notify_multiplier =
            config<std::uint32_t>(slot, static_cast<std::uint16_t>(at + 16));
    }
}

}  // namespace

void init_pci(std::uint64_t ecam) noexcept {
    ecam_base = ecam;
}

bool find_device(DeviceType type, int from, Device& device) noexcept {
    for (int slot = from + 1; slot < slots; ++slot) {
        const auto id = config<std::uint32_t>(slot, 0);
        if (id != (static_cast<std::uint32_t>(type) << 16 | vendor) ||
            (config<std::uint16_t>(slot, config_status) & status_capabilities) == 0)
            continue;
        const auto command = config<std::uint16_t>(slot, config_command);
        cpu::mmio_write<std::uint16_t>(config_address(slot, config_command),
                                       command | command_memory | command_master);
        device = {};
        device.slot = static_cast<std::uint8_t>(slot);
        auto at = config<std::uint8_t>(slot, config_capabilities);
        constexpr int most = 48;  // as many as fit into 256 bytes
        for (int i = 0; i < most && at >= 0x40; ++i) {
            if (config<std::uint8_t>(slot, at) == capability_vendor)
                read_capability(slot, at, device);
            at = config<std::uint8_t>(slot, static_cast<std::uint16_t>(at + 1)) & 0xfc;
        }
        if (device.common != 0 && device.notify != 0 && device.config != 0)
            return true;
    }
    return false;
}

void reset(const Device& device) noexcept {
    cpu::mmio_write<std::uint8_t>(device.common + common::device_status, 0);
    for (int i = 0; i < reset_patience; ++i) {
        if (cpu::mmio_read<std::uint8_t>(device.common + common::device_status) == 0)
            return;
        cpu::pause();
    }
}

bool begin(const Device& device, std::uint64_t wanted, std::uint64_t& got) noexcept {
    const auto set_status = [&](std::uint8_t status) {
        cpu::mmio_write<std::uint8_t>(device.common + common::device_status, status);
    };
    reset(device);
    set_status(status_acknowledge);
    set_status(status_acknowledge | status_driver);
    std::uint64_t offered = 0;
    for (std::uint32_t word = 0; word < 2; ++word) {
        cpu::mmio_write<std::uint32_t>(device.common + common::device_feature_select, word);
        offered |= std::uint64_t{cpu::mmio_read<std::uint32_t>(device.common + common::device_feature)}
                   << (word * 32);
    }
    if ((offered & feature_version_1) == 0)
        return false;
    got = offered & (wanted | feature_version_1);
    for (std::uint32_t word = 0; word < 2; ++word) {
        cpu::mmio_write<std::uint32_t>(device.common + common::driver_feature_select, word);
        cpu::mmio_write<std::uint32_t>(device.common + common::driver_feature,
                                       static_cast<std::uint32_t>(got >> (word * 32)));
    }
    set_status(status_acknowledge | status_driver | status_features_ok);
    return (cpu::mmio_read<std::uint8_t>(device.common + common::device_status) &
            status_features_ok) != 0;
}

void driver_ok(const Device& device) noexcept {
    cpu::mmio_write<std::uint8_t>(
        device.common + common::device_status,
        status_acknowledge | status_driver | status_features_ok | status_driver_ok);
}

}  // namespace masu::firmware::virtio
