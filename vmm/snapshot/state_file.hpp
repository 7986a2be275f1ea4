// The container of a snapshot's state: a header, a table of sections, the sections. Every byte is
// under a checksum (XXH3, 64 bits), so that damage is told from a foreign format and from a guest's
// doing.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/plain_data.hpp"
#include "base/result.hpp"

namespace masu::snapshot {

// The minor version grows when something is added that an older file does not have, and the reader
// fills in what that means; the major version when an older reader's or file's meaning changes.
// Loaded: the same major version and a minor one up to ours.
inline constexpr std::uint16_t format_major = 1;
inline constexpr std::uint16_t format_minor = 3;
inline constexpr std::array<char, 8> format_magic{'M', 'A', 'S', 'U', 'S', 'N', 'A', 'P'};

inline constexpr std::size_t max_state_size = 256 << 20;  // bytes
inline constexpr std::uint32_t max_sections = 1024;

// What a section holds; `index` tells sections of one kind apart. Numbers are never used again.
enum class SectionKind : std::uint32_t {
    Config = 1,    // JSON, as in a config file; since 1.2 with network_mac of interfaces
    Machine = 2,   // memory size, clock, ...
    Cpuid = 3,     // by vCPU
    Vcpu = 4,      // by vCPU
    Platform = 5,  // IOAPIC, UART, ...
    PciRoot = 6,
    PciFunction = 7,  // by place in the list of devices
    MmioWindow = 8,   // by place in the list of devices
    Interface = 9,    // since 1.1: a firewall's flows, by place in the list of interfaces
    Metadata = 10,    // since 1.1: the document of the metadata service, where there is one
    Host = 11,        // since 1.3: which host it was saved on, where that is known
};

struct FileHeader {
    std::array<char, 8> magic = format_magic;
    std::uint16_t major = format_major;
    std::uint16_t minor = format_minor;
    std::uint32_t section_count = 0;
    std::uint64_t file_size = 0;
    std::uint64_t checksum = 0;  // of this header with zero here, and the table
};
static_assert(PlainData<FileHeader> && sizeof(FileHeader) == 32);
static_assert(offsetof(FileHeader, file_size) == 16 && offsetof(FileHeader, checksum) == 24);

struct SectionEntry {
    std::uint32_t kind = 0;
    std::uint32_t index = 0;
    std::uint64_t offset = 0;  // from the start of the file; sections follow each other
    std::uint64_t size = 0;
    std::uint64_t checksum = 0;
};
static_assert(PlainData<SectionEntry> && sizeof(SectionEntry) == 32);

class StateWriter {
  public:
    void add(SectionKind kind, std::uint32_t index, std::vector<std::byte> bytes);
    [[nodiscard]] std::vector<std::byte> file() const;

  private:
    struct Section {
        SectionKind kind;
        std::uint32_t index;
        std::vector<std::byte> bytes;
    };
    std::vector<Section> sections_;
};

struct Section {
    SectionKind kind{};
    std::uint32_t index = 0;
    std::span<const std::byte> bytes;

    // For errors: "the vCPU 1 section of the snapshot".
    [[nodiscard]] std::string name() const;
};

// The sections of a file, checked whole: magic, version, sizes, places, checksums. They point into
// `file`. Errors are sentences for whoever wanted to restore.
[[nodiscard]] Result<std::vector<Section>> read_state_file(std::span<const std::byte> file);

}  // namespace masu::snapshot
