// Finds what a disk without an EFI system partition boots: its file systems, and the configuration
// that one of its own boot loaders would read.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <span>

#include "firmware/arena.hpp"
#include "firmware/boot/boot_entry.hpp"
#include "firmware/fs/block_reader.hpp"
#include "firmware/fs/partitions.hpp"

namespace masu::firmware {

inline constexpr std::size_t max_devices = 16;
inline constexpr std::size_t max_scan_notes = 16;

struct DiskScan {
    std::array<BootDevice, max_devices> device_list;
    std::size_t device_count = 0;
    // What was passed over, and why: unsound partitions, file systems that cannot be read.
    std::array<Message, max_scan_notes> note_list;
    std::size_t note_count = 0;
    [[nodiscard]] std::span<const BootDevice> devices() const noexcept {
        return std::span(device_list).first(device_count);
    }
    [[nodiscard]] std::span<const Message> notes() const noexcept {
        return std::span(note_list).first(note_count);
    }
};

// Mounts every file system on the disks, in order; each takes some 300 KiB of `arena`, and a
// partition's reader too. Swap space, BIOS boot partitions and the like are passed over in silence.
// DiskScan is large: make it in the arena.
void scan_disks(std::span<BlockReader* const> disks, Arena& arena, DiskScan& scan) noexcept;

// The line for the console when nothing can be booted: what was found and tried.
using BootFailure = Text<1200>;

// Disk by disk, in the order of `devices`: BLS entries, then grub.cfg, then extlinux.conf, on each
// disk's devices with the preferred ones first. The first configuration whose chosen entry can be
// booted is the result. `only_disk`: look for configurations on this disk alone (they may name
// files on the others).
[[nodiscard]] std::expected<BootMenu, BootFailure> find_boot(std::span<const BootDevice> devices,
                                                             std::optional<std::uint32_t> only_disk,
                                                             Arena& arena) noexcept;

}  // namespace masu::firmware
