// Block I/O and Disk I/O on disks and partitions (UEFI 13.7, 13.9).
#pragma once

#include <cstdint>
#include <span>

#include "firmware/efi/device_path.hpp"
#include "firmware/efi/protocols.hpp"
#include "firmware/fs/partitions.hpp"
#include "firmware/virtio/blk.hpp"

namespace masu::firmware {

// A disk or a partition of one, with its protocols. Lives for ever.
struct BlockDevice {
    efi::BlockIo block_io{};  // first: protocol calls find the rest from here
    efi::DiskIo disk_io{};
    efi::BlockIoMedia media{};
    efi::Handle handle = nullptr;
    virtio::Blk* blk = nullptr;
    std::uint64_t first_lba = 0;
    std::uint64_t block_count = 0;
    struct Path {
        efi::AcpiNode root{};
        efi::PciNode pci{};
        efi::HardDriveNode partition{};  // an end node in a whole disk's path
        efi::EndNode end{};
    } __attribute__((packed)) path{};
};

struct Disk {
    BlockDevice device;
    PartitionTable table{};
    BlockDevice* partitions[128] = {};  // by place in the table; nullptr: not usable
};

inline constexpr std::size_t max_disks = 64;

// Finds every virtio-blk device, reads its partition table and installs the protocols; what is
// wrong with a disk is said on the console.
[[nodiscard]] std::span<Disk* const> start_disks() noexcept;
// Takes the devices' memory from them: ExitBootServices.
void stop_disks() noexcept;

// Simple File System, if there is a FAT file system on it (UEFI 13.4, 13.5), read-only.
[[nodiscard]] bool install_file_system(BlockDevice& device) noexcept;

}  // namespace masu::firmware
