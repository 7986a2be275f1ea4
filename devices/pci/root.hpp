// The PCI root: bus 0, its host bridge, and the guest's two ways to configuration space.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>

#include "base/log.hpp"
#include "base/metrics.hpp"
#include "base/result.hpp"
#include "devices/bus.hpp"
#include "devices/pci/function.hpp"

namespace masu::pci {

inline constexpr unsigned device_count = 32;  // of a bus; number 0 is the host bridge
inline constexpr std::uint64_t ecam_bus_size = 0x10'0000;
inline constexpr std::uint64_t config_ports = 8;  // CF8-CFF

// [start, end) of guest-physical addresses that the host bridge hands to its BARs.
struct MemoryWindow {
    std::uint64_t start = 0;
    std::uint64_t end = 0;
};

// What a guest can change here (the functions have their own); for snapshots.
struct RootState {
    std::uint32_t config_address = 0;  // port CF8
};

// Functions sit at 00:NN.0, single-function. BARs get their addresses here, as firmware would give
// them, and decode at once. A guest may move a BAR anywhere: it answers only where it lies wholly
// inside the window and on nothing else; otherwise it is not mapped, which is counted (group "pci",
// "bar_conflicts") and logged, until the guest moves it or whatever was in its way.
//
// Thread-safe: one lock guards all configuration space. Lock order: this lock, then a device's,
// then its MSI-X lock; Bus locks are innermost.
class Root {
  public:
    // Borrows the bus of MMIO ranges on which BARs appear. The owner inserts ecam() there and
    // ports() on the port bus.
    Root(Bus& mmio, MemoryWindow window, Metrics& metrics, const Log& log);
    ~Root();
    Root(const Root&) = delete;
    Root& operator=(const Root&) = delete;

    // ECAM of bus 0, ecam_bus_size bytes (PCI Express 6.0, 7.2.2). Any width and alignment.
    [[nodiscard]] BusDevice& ecam() noexcept { return ecam_; }
    // CONFIG_ADDRESS and CONFIG_DATA, config_ports ports from CF8 (PCI Local Bus 3.0, 3.2.2.3.2).
    [[nodiscard]] BusDevice& ports() noexcept { return ports_; }

    // Puts a function at the first free device number, or at `device` (1-31), assigns its BARs and
    // enables memory space. Returns the number. The function is borrowed until remove().
    [[nodiscard]] Result<unsigned> add(Function& function,
                                       std::optional<unsigned> device = std::nullopt);
    // The same for a function whose configuration space has been restored: it keeps its BARs, which
    // are mapped by restore(), once all functions are back.
    [[nodiscard]] Result<> put_back(Function& function, unsigned device);
    // A vCPU that is just inside one of the BARs finishes there: stop or pause the vCPUs before
    // destroying the function.
    void remove(unsigned device);

    [[nodiscard]] RootState save() const;
    // After the functions' own restore: also maps every BAR where its register now says.
    void restore(const RootState& state);

  private:
    class Ecam final : public BusDevice {
      public:
        explicit Ecam(Root& root) : root_(root) {}
        void read(std::uint64_t offset, std::span<std::byte> data) override;
        void write(std::uint64_t offset, std::span<const std::byte> data) override;

      private:
        Root& root_;
    };
    class Ports final : public BusDevice {
      public:
        explicit Ports(Root& root) : root_(root) {}
        void read(std::uint64_t offset, std::span<std::byte> data) override;
        void write(std::uint64_t offset, std::span<const std::byte> data) override;

      private:
        Root& root_;
    };
    class HostBridge final : public Function {
      public:
        HostBridge();
        ConfigSpace& config() override { return config_; }
        BusDevice* bar_device(unsigned) override { return nullptr; }
        void bar_moved(unsigned, std::optional<std::uint64_t>) override {}

      private:
        ConfigSpace config_;
    };

    struct BarMapping {
        std::optional<std::uint64_t> mapped;   // on the bus
        std::optional<std::uint64_t> told;     // what the function was last told
        std::optional<std::uint64_t> refused;  // where it could not be mapped; said once
    };
    struct Slot {
        Function* function = nullptr;
        std::array<BarMapping, bar_count> bars;
    };

    // All with mutex_ held.
    void read_config(unsigned device, unsigned function, std::uint16_t offset,
                     std::span<std::byte> data);
    void write_config(unsigned device, unsigned function, std::uint16_t offset,
                      std::span<const std::byte> data);
    [[nodiscard]] Result<> assign_bars(Function& function);
    [[nodiscard]] std::optional<std::uint64_t> find_room(std::uint64_t size) const;
    [[nodiscard]] std::optional<std::uint64_t> end_of_overlap(std::uint64_t start,
                                                              std::uint64_t size) const;
    void update_mappings();
    void map(Slot& slot, unsigned bar, std::uint64_t address);
    void refuse(BarMapping& mapping, Function& function, unsigned bar, std::uint64_t address,
                std::string_view why);
    void evict_idle(std::uint64_t start, std::uint64_t size);
    void release(Slot& slot);

    Bus& mmio_;
    const MemoryWindow window_;
    Log log_;
    Counter& conflicts_;
    Ecam ecam_{*this};
    Ports ports_{*this};
    HostBridge bridge_;
    mutable std::mutex mutex_;
    RootState state_;
    std::array<Slot, device_count> slots_;
};

}  // namespace masu::pci
