// What a boot configuration says: entries, each a kernel with its initrds and command line.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>
#include <string_view>

#include "firmware/arena.hpp"
#include "firmware/boot/text.hpp"
#include "firmware/fs/file_system.hpp"

namespace masu::firmware {

// A mounted file system and where it was found.
struct BootDevice {
    FileSystem* fs = nullptr;
    std::uint32_t disk = 0;       // as the machine counts them, from 0
    std::uint32_t partition = 0;  // as Linux counts; 0: the whole disk
    bool gpt = false;
    bool preferred = false;  // an active MBR partition, or a GPT type or flag that says "boot"
};

// "disk 1 partition 2", for messages: people count disks from 1, as --boot-device does, and `disk`
// is the machine's number, from 0.
void describe(Message& to, std::uint32_t disk, std::uint32_t partition) noexcept;
// The same, and what is there: "disk 1 partition 2 (ext4)".
void describe(Message& to, const BootDevice& device) noexcept;

// A file on one of the devices, by an absolute path.
struct BootFile {
    std::size_t device = 0;  // index into the devices given
    std::string_view path;
};

inline constexpr std::size_t max_initrds = 8;
inline constexpr std::size_t max_entries = 128;
inline constexpr std::size_t max_command_line = 4096;

// All text lies in the arena, in the files read into it, or in literals.
struct BootEntry {
    std::string_view title;
    std::string_view id;      // GRUB's --id, a BLS entry's file name, extlinux's label
    std::string_view parent;  // the submenu it is in, as "title" or "title>title"; may be empty
    const char* problem = nullptr;    // why it cannot be booted here; nullptr: it can
    std::string_view problem_detail;  // the command, file or option that `problem` speaks of
    BootFile kernel;
    std::array<BootFile, max_initrds> initrds;
    std::size_t initrd_count = 0;
    std::string_view command_line;
};

enum class ConfigKind : std::uint8_t { Bls, Grub, Extlinux };

// Never empty; `chosen` is the default entry, which may have a problem.
struct BootMenu {
    ConfigKind kind = ConfigKind::Grub;
    BootFile config;
    std::span<BootEntry> entries;
    std::size_t chosen = 0;
    std::uint32_t timeout = 0;  // seconds that the configuration asks to wait; not obeyed here
};

// Looks that files can be opened; on failure puts into the entry's `problem` which one cannot.
void check_files(BootEntry& entry, std::span<const BootDevice> devices) noexcept;

using BootResult = std::expected<BootMenu, Message>;

// Reads a whole configuration file, at most 1 MiB, into the arena.
[[nodiscard]] Result<std::string_view> read_text(FileSystem& fs, std::string_view path,
                                                 Arena& arena) noexcept;

// For each parser: `config` is the file (or, for BLS, the folder of entries) on
// devices[config.device]. The message names the file and what is wrong with it. The arena keeps
// what the menu refers to.
[[nodiscard]] BootResult read_grub_config(std::span<const BootDevice> devices,
                                          const BootFile& config, Arena& arena) noexcept;
[[nodiscard]] BootResult read_bls_entries(std::span<const BootDevice> devices,
                                          const BootFile& config, Arena& arena) noexcept;
[[nodiscard]] BootResult read_extlinux_config(std::span<const BootDevice> devices,
                                              const BootFile& config, Arena& arena) noexcept;

}  // namespace masu::firmware
