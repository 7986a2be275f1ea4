// MSI-X: the vector table and the pending bits of one function (PCI Local Bus 3.0, 6.8.2).
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "base/result.hpp"
#include "devices/interrupt.hpp"
#include "devices/pci/config_space.hpp"

namespace masu::pci {

inline constexpr unsigned msix_vectors_max = 2048;
inline constexpr std::size_t msix_entry_size = 16;

// One row of the table, as the guest reads it.
struct MsixEntry {
    std::uint32_t address_low = 0;
    std::uint32_t address_high = 0;
    std::uint32_t data = 0;
    std::uint32_t control = 1;  // bit 0: masked, which it is after reset
};

// Everything the guest can see or cause; a plain value for snapshots.
struct MsixState {
    bool enabled = false;
    bool function_masked = false;
    std::vector<MsixEntry> table;
    std::vector<std::uint64_t> pending;  // a bit per vector, as in the PBA
};

// Thread-safe. The bank is called with this object's lock held, which comes after the root's and
// after a device's.
class Msix {
  public:
    // The bank is borrowed and holds `vectors` rows (1 to msix_vectors_max), none routed.
    Msix(MsiBank& bank, unsigned vectors);

    // Where the table and the PBA lie; offsets are multiples of 8.
    struct Placement {
        unsigned bar = 0;
        std::uint32_t table_offset = 0;
        std::uint32_t pba_offset = 0;
    };
    // Set-up: adds the capability. Afterwards call config_written() for each write to `space`.
    [[nodiscard]] Result<> add_capability(ConfigSpace& space, const Placement& placement);
    // Follows Enable and Function Mask of Message Control. The root's lock is held.
    void config_written(const ConfigSpace& space);

    [[nodiscard]] unsigned vectors() const noexcept { return vectors_; }
    [[nodiscard]] std::size_t table_size() const noexcept { return vectors_ * msix_entry_size; }
    [[nodiscard]] std::size_t pba_size() const noexcept { return (vectors_ + 63) / 64 * 8; }

    // Accesses of 4 or 8 naturally aligned bytes; others, and those beyond the end, leave `data`
    // as it is, or do nothing. The PBA is read-only.
    void read_table(std::uint64_t offset, std::span<std::byte> data) const;
    void write_table(std::uint64_t offset, std::span<const std::byte> data);
    void read_pba(std::uint64_t offset, std::span<std::byte> data) const;

    // Sends the vector's message, or sets its pending bit while it is masked. Nothing happens when
    // MSI-X is disabled or there is no such vector.
    void signal(unsigned vector);

    [[nodiscard]] MsixState save() const;
    // Also routes every vector anew. A state of another size is an error and changes nothing.
    [[nodiscard]] Result<> restore(const MsixState& state);

  private:
    // All with mutex_ held.
    [[nodiscard]] bool deliverable(unsigned vector) const noexcept;
    void write_dword(std::size_t index, std::uint32_t value);
    void update(unsigned vector);
    void update_all();

    MsiBank& bank_;
    const unsigned vectors_;
    std::uint16_t capability_ = 0;  // offset in the configuration space
    mutable std::mutex mutex_;
    MsixState state_;
    std::vector<std::optional<MsiMessage>> routes_;  // what the bank was told
};

}  // namespace masu::pci
