// A disk's partition table: GPT (UEFI 2.10, chapter 5) or MBR with its logical partitions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "firmware/arena.hpp"
#include "firmware/fs/block_reader.hpp"

namespace masu::firmware {

// As on disk: the first three fields little-endian, as EFI_GUID.
struct Guid {
    std::array<std::uint8_t, 16> bytes{};
    bool operator==(const Guid&) const = default;
};

// "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", either case, into its bytes.
[[nodiscard]] constexpr Guid guid(std::string_view text) noexcept {
    constexpr std::array<std::uint8_t, 16> place{3, 2, 1,  0,  5,  4,  7,  6,
                                                 8, 9, 10, 11, 12, 13, 14, 15};
    Guid result;
    std::size_t digits = 0;
    for (const char c : text) {
        const char lower = static_cast<char>(c | 0x20);
        const int digit = c >= '0' && c <= '9'           ? c - '0'
                          : lower >= 'a' && lower <= 'f' ? lower - 'a' + 10
                                                         : -1;
        if (digit < 0 || digits == 32)
            continue;
        auto& byte = result.bytes[place[digits / 2]];
        byte = static_cast<std::uint8_t>(byte << 4 | digit);
        ++digits;
    }
    return result;
}

namespace partition_type {
inline constexpr Guid esp = guid("c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
inline constexpr Guid bios_boot = guid("21686148-6449-6e6f-744e-656564454649");
inline constexpr Guid linux_data = guid("0fc63daf-8483-4772-8e79-3d69d8477de4");
inline constexpr Guid linux_root = guid("4f68bce3-e8cd-4db1-96e7-fbcaf984b709");  // x86-64
inline constexpr Guid xbootldr = guid("bc13c2ff-59e6-4262-a352-b275fd6f7172");
inline constexpr std::uint8_t mbr_esp = 0xef;
}  // namespace partition_type

enum class Scheme : std::uint8_t { None, Mbr, Gpt };

struct Partition {
    std::uint32_t number = 0;  // as Linux counts: 1.., logical MBR partitions from 5
    std::uint64_t first_lba = 0;
    std::uint64_t block_count = 0;
    const char* rejected = nullptr;  // why it must not be used; nullptr: sound
    Guid type;                       // GPT
    Guid unique;                     // GPT
    std::uint64_t attributes = 0;    // GPT; bit 2: legacy BIOS bootable
    std::uint8_t mbr_type = 0;       // MBR
    bool active = false;             // MBR status 0x80, or GPT's legacy bootable bit
    std::array<char, 112> name{};    // GPT, UTF-8, ends with NUL
};

struct PartitionTable {
    Scheme scheme = Scheme::None;
    std::span<Partition> partitions;  // by number; also those rejected
    const char* warning = nullptr;    // what was put up with, such as a damaged primary GPT
    Guid disk_guid;                   // GPT
    std::uint32_t mbr_signature = 0;  // of the MBR, also beside a GPT; 0 if there is no MBR
};

[[nodiscard]] inline bool is_esp(const Partition& partition) noexcept {
    return partition.type == partition_type::esp || partition.mbr_type == partition_type::mbr_esp;
}

// Reads the table; the list lies in `arena`. A disk without one (also one that is a FAT file system
// from its first block on) is Scheme::None with no partitions, not an error. Errors: Io; Corrupt
// when a GPT announced by its protective MBR is unsound in both copies (reason: the primary's);
// NoMemory. Partitions that lie outside the disk, are empty or overlap another are in the list with
// the reason in `rejected`. At most 128 partitions of a GPT and 60 logical ones are looked at.
[[nodiscard]] Result<PartitionTable> read_partitions(BlockReader& disk, Arena& arena) noexcept;

// "21686148-6449-6e6f-744e-656564454649": how Linux prints it.
[[nodiscard]] std::array<char, 37> to_text(const Guid& guid) noexcept;

}  // namespace masu::firmware
