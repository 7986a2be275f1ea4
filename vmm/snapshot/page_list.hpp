// A list of pages as a small file beside a snapshot's memory: which pages a differential memory
// file holds, or which ones a guest touches first.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/plain_data.hpp"
#include "base/result.hpp"
#include "vmm/page_set.hpp"

namespace masu::snapshot {

// Tells snapshots apart: XXH3, 128 bits, of the state file, which holds clocks and registers to the
// nanosecond under checksums of its own.
using SnapshotId = std::array<std::byte, 16>;
[[nodiscard]] SnapshotId id_of(std::span<const std::byte> state_file);
[[nodiscard]] std::string to_hex(const SnapshotId& id);

inline constexpr std::uint16_t page_list_version = 1;
inline constexpr std::array<char, 8> page_list_magic{'M', 'A', 'S', 'U', 'P', 'A', 'G', 'E'};
inline constexpr std::uint32_t max_page_runs = 1U << 20;

enum class PageListKind : std::uint16_t {
    OwnPages = 1,    // of a differential memory file; `belongs_to` is its parent
    WorkingSet = 2,  // `belongs_to` is the snapshot whose guest touched them
};

enum class PageUse : std::uint32_t { Read = 0, Written = 1 };

struct ListedRun {
    std::uint64_t first = 0;
    std::uint32_t count = 0;
    std::uint32_t use = 0;  // PageUse
    bool operator==(const ListedRun&) const = default;
};
static_assert(PlainData<ListedRun> && sizeof(ListedRun) == 16);

struct PageList {
    PageListKind kind = PageListKind::OwnPages;
    std::uint64_t memory_bytes = 0;
    SnapshotId belongs_to{};
    std::vector<ListedRun> runs;  // ascending, not overlapping, not empty

    [[nodiscard]] std::uint64_t pages() const noexcept;
};

// Adds the runs of a set to a list, as they are; the caller sees to the order.
void add_runs(std::vector<ListedRun>& to, const PageSet& pages, PageUse use);

[[nodiscard]] std::vector<std::byte> encode(const PageList& list);
// Magic, version, sizes, checksum and every run are checked; `file` may be anyone's. Errors name
// `what` the file is.
[[nodiscard]] Result<PageList> decode_page_list(std::span<const std::byte> file,
                                                PageListKind wanted, std::uint64_t memory_bytes);
// The file `path`, read whole and decoded.
[[nodiscard]] Result<PageList> load_page_list(const std::string& path, PageListKind wanted,
                                              std::uint64_t memory_bytes);

}  // namespace masu::snapshot
