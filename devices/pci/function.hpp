// One PCI function as the root sees it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "devices/bus.hpp"
#include "devices/pci/config_space.hpp"

namespace masu::pci {

// Every method is called with the root's lock held, on any vCPU thread or the one that adds and
// removes functions. A function must not call the root from within, and its own locks come after
// the root's.
class Function {
  public:
    virtual ~Function() = default;
    [[nodiscard]] virtual ConfigSpace& config() = 0;

    // A guest's access, any offset and size. Override to act on a register; call these from there.
    virtual void read_config(std::uint16_t offset, std::span<std::byte> data) {
        config().read(offset, data);
    }
    virtual void write_config(std::uint16_t offset, std::span<const std::byte> data) {
        config().write(offset, data);
    }

    // What answers at a BAR; asked once per mapping, for BARs with a size. Called without the
    // root's lock, as on any Bus.
    [[nodiscard]] virtual BusDevice* bar_device(unsigned bar) = 0;

    // The BAR decodes at another address than the last one told here; nullopt: something else may
    // be there from now on. A BAR that stops decoding for a while (as when the guest sizes it) and
    // comes back to the same place is not reported.
    virtual void bar_moved(unsigned bar, std::optional<std::uint64_t> address) = 0;
};

}  // namespace masu::pci
