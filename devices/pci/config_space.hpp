// The configuration space of one PCI function: type 0 header, BARs, capability list.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>

#include "base/bytes.hpp"
#include "base/result.hpp"

namespace masu::pci {

inline constexpr std::size_t config_space_size = 4096;
inline constexpr unsigned bar_count = 6;

// Offsets of the type 0 header (PCI Local Bus 3.0, 6.1 and figure 6-1).
namespace reg {
inline constexpr std::uint16_t vendor_id = 0x00;
inline constexpr std::uint16_t device_id = 0x02;
inline constexpr std::uint16_t command = 0x04;
inline constexpr std::uint16_t status = 0x06;
inline constexpr std::uint16_t revision_id = 0x08;
inline constexpr std::uint16_t class_code = 0x09;  // 3 bytes
inline constexpr std::uint16_t cache_line_size = 0x0c;
inline constexpr std::uint16_t header_type = 0x0e;
inline constexpr std::uint16_t bar0 = 0x10;
inline constexpr std::uint16_t bars_end = 0x28;
inline constexpr std::uint16_t subsystem_vendor_id = 0x2c;
inline constexpr std::uint16_t subsystem_id = 0x2e;
inline constexpr std::uint16_t capabilities = 0x34;
inline constexpr std::uint16_t interrupt_line = 0x3c;
inline constexpr std::uint16_t interrupt_pin = 0x3d;
inline constexpr std::uint16_t header_end = 0x40;
inline constexpr std::uint16_t conventional_end = 0x100;
}  // namespace reg

namespace command {
inline constexpr std::uint16_t memory_space = 1 << 1;
inline constexpr std::uint16_t bus_master = 1 << 2;
inline constexpr std::uint16_t parity_error_response = 1 << 6;
inline constexpr std::uint16_t serr_enable = 1 << 8;
inline constexpr std::uint16_t interrupt_disable = 1 << 10;
}  // namespace command

namespace capability {
inline constexpr std::uint8_t vendor_specific = 0x09;
inline constexpr std::uint8_t msix = 0x11;
}  // namespace capability

struct Identity {
    std::uint16_t vendor = 0;
    std::uint16_t device = 0;
    std::uint32_t class_code = 0;  // base class, subclass, programming interface: 0x020000 is NIC
    std::uint8_t revision = 0;
    std::uint16_t subsystem_vendor = 0;
    std::uint16_t subsystem = 0;
};

enum class BarKind : std::uint8_t { Memory32, Memory64 };

// What a guest can change, for snapshots.
struct ConfigState {
    std::array<std::byte, config_space_size> bytes{};
};

// The registers as bytes, each with a mask of the bits a guest may write and one of those that
// writing 1 clears; all others are read-only. Functions are conventional PCI (no PCI Express
// capability): Linux then leaves link, ASPM and AER alone, and the space above 255 reads as an
// empty list of extended capabilities. The interrupt pin is 0: MSI-X is the only interrupt.
// Not thread-safe: the root's lock guards it.
class ConfigSpace {
  public:
    explicit ConfigSpace(const Identity& identity);

    // Set-up. `size` is a power of two from 16; a 64-bit BAR takes index and index + 1. The BAR
    // starts at address 0.
    [[nodiscard]] Result<> add_bar(unsigned index, BarKind kind, std::uint64_t size);
    // Appends a capability (id and next pointer are added in front of `body`) and returns its
    // offset; offsets are multiples of 4. `writable`, if not empty, masks `body`.
    [[nodiscard]] Result<std::uint16_t> add_capability(std::uint8_t id,
                                                       std::span<const std::byte> body,
                                                       std::span<const std::byte> writable = {});

    // The guest's side: any offset and size. What lies beyond the end reads as ones and takes no
    // write.
    void read(std::uint16_t offset, std::span<std::byte> data) const noexcept;
    void write(std::uint16_t offset, std::span<const std::byte> data) noexcept;

    // The device's side: no masks. The caller keeps offset + sizeof(T) within the space.
    template <class T>
        requires std::is_trivially_copyable_v<T>
    [[nodiscard]] T get(std::uint16_t offset) const noexcept {
        return load_unaligned<T>(state_.bytes.data() + offset);
    }
    template <class T>
        requires std::is_trivially_copyable_v<T>
    void set(std::uint16_t offset, const T& value) noexcept {
        store_unaligned(state_.bytes.data() + offset, value);
    }

    // 0 where there is no such BAR (also for the upper half of a 64-bit one).
    [[nodiscard]] std::uint64_t bar_size(unsigned index) const noexcept;
    [[nodiscard]] BarKind bar_kind(unsigned index) const noexcept { return bars_[index].kind; }
    [[nodiscard]] std::uint64_t bar_address(unsigned index) const noexcept;
    void set_bar_address(unsigned index, std::uint64_t address) noexcept;
    [[nodiscard]] bool memory_enabled() const noexcept {
        return (get<std::uint16_t>(reg::command) & command::memory_space) != 0;
    }

    [[nodiscard]] const ConfigState& save() const noexcept { return state_; }
    // Takes only the bits a guest may write; the rest stays as it was built.
    void restore(const ConfigState& state) noexcept;

  private:
    struct Bar {
        BarKind kind = BarKind::Memory32;
        std::uint64_t size = 0;
        bool taken = false;  // has a size, or is the upper half of the one before
    };
    void allow_write(std::uint16_t offset, std::uint32_t mask, unsigned size) noexcept;

    ConfigState state_;
    std::array<std::byte, config_space_size> writable_{};
    std::array<std::byte, config_space_size> write_1_clears_{};
    std::array<Bar, bar_count> bars_{};
    std::uint16_t last_capability_ = 0;
    std::uint16_t next_free_ = reg::header_end;
};

// Whether an access touches [start, end).
[[nodiscard]] constexpr bool touches(std::uint16_t offset, std::size_t size, std::uint16_t start,
                                     std::uint16_t end) noexcept {
    return offset < end && offset + size > start;
}

}  // namespace masu::pci
