// Puts a Linux kernel with its initrds into memory and enters it by the 64-bit boot protocol
// (Documentation/arch/x86/boot.rst, 2.12 and later).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "firmware/boot/boot_entry.hpp"
#include "firmware/boot/text.hpp"
#include "firmware/result.hpp"

namespace masu::firmware {

// A piece of physical memory. In each kind but Free nothing is placed.
enum class MemoryKind : std::uint8_t {
    Free,         // RAM that nobody uses
    Firmware,     // RAM that the firmware uses until it enters the kernel: RAM for the kernel
    AcpiReclaim,  // ACPI tables
    AcpiNvs,
    Reserved,
};

struct MemoryRange {
    std::uint64_t start = 0;  // bytes
    std::uint64_t size = 0;
    MemoryKind kind = MemoryKind::Reserved;
};

inline constexpr std::size_t kernel_head_size = 1024;

// The setup header of a bzImage, judged.
struct KernelHeader {
    std::uint64_t payload_offset = 0;  // in the file: the protected-mode kernel
    std::uint64_t payload_size = 0;
    std::uint64_t preferred_address = 0;
    std::uint64_t memory_size = 0;  // from the load address on, while the kernel unpacks itself
    std::uint64_t alignment = 0;    // 0: it must be at its preferred address
    std::uint64_t initrd_highest_byte = 0;
    bool initrd_above_4g = false;
    std::uint32_t command_line_limit = 0;  // without the final NUL
};

// `head` is the start of the file, at least kernel_head_size bytes or all of a shorter one.
[[nodiscard]] Result<KernelHeader> parse_kernel(std::span<const std::byte> head,
                                                std::uint64_t file_size) noexcept;

// Where everything goes; addresses are physical.
struct HandoffPlan {
    KernelHeader kernel;
    std::uint64_t kernel_address = 0;
    std::uint64_t initrd_address = 0;  // page-aligned; 0 without initrds
    std::uint64_t initrd_size = 0;     // of all of them, each padded to 4 bytes
    std::uint64_t parameters = 0;      // the zero page and, a page behind it, the command line
};

// `initrd_sizes` in the order of loading. The ranges of `map` are sorted and do not overlap.
[[nodiscard]] Result<HandoffPlan> plan_handoff(const KernelHeader& kernel,
                                               std::span<const std::uint64_t> initrd_sizes,
                                               std::string_view command_line,
                                               std::span<const MemoryRange> map) noexcept;

// Physical memory as the code can reach it: the identity in the firmware, an array in a test.
class PhysicalMemory {
  public:
    // `size` bytes at `address`, all in ranges of kind Free.
    [[nodiscard]] virtual std::span<std::byte> at(std::uint64_t address,
                                                  std::size_t size) noexcept = 0;

  protected:
    ~PhysicalMemory() = default;
};

// Reads kernel and initrds where the plan says and writes the zero page, e820 map and command line.
// `rsdp`: the ACPI root pointer's address, or 0. `head` as for parse_kernel.
[[nodiscard]] Result<> load_handoff(const HandoffPlan& plan, std::span<const BootDevice> devices,
                                    const BootEntry& entry, std::span<const std::byte> head,
                                    std::span<const MemoryRange> map, std::uint64_t rsdp,
                                    PhysicalMemory& memory) noexcept;

// All of it up to the jump. The message names the file and what is wrong.
[[nodiscard]] std::expected<HandoffPlan, Message> prepare_handoff(
    std::span<const BootDevice> devices, const BootEntry& entry, std::span<const MemoryRange> map,
    std::uint64_t rsdp, PhysicalMemory& memory) noexcept;

// Enters the kernel; does not come back. Paging must map the plan's ranges and this code 1:1. It
// turns interrupts off and loads the descriptor table that the protocol asks for (CS 0x10, DS
// 0x18).
[[noreturn]] void enter_kernel(const HandoffPlan& plan) noexcept;

}  // namespace masu::firmware
