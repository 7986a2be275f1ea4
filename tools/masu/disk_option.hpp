// The --disk option: what follows the path, and how it is put to the monitor.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json/object.hpp>

#include "base/result.hpp"

namespace masu::cli {

// FILE[,ro][,overlay=FILE[,size=SIZE]][,serial=S][,iops=N][,bw=N][,direct]
struct DiskOption {
    std::string path;  // absolute once resolve_paths() ran
    bool read_only = false;
    std::optional<std::string> overlay;
    std::optional<std::uint64_t> overlay_size;  // of the disk a new overlay makes, bytes
    std::optional<std::string> serial;          // 1 to 20 printable ASCII characters
    std::optional<std::uint64_t> iops;          // requests a second
    std::optional<std::uint64_t> bandwidth;     // bytes a second
    bool direct = false;                        // O_DIRECT on the host
    bool operator==(const DiskOption&) const = default;
};

// The settings of an option. A comma that belongs to a file name is written twice (",,").
[[nodiscard]] std::vector<std::string> split_at_single_commas(std::string_view text);

[[nodiscard]] Result<DiskOption> parse_disk_option(std::string_view text);

// Makes the paths absolute and refuses what cannot be a disk: a missing file, a folder.
// Whether the monitor can use it is for the monitor to say.
[[nodiscard]] Result<> resolve_disk(DiskOption& disk);

// The body of PUT /drives/{id}.
[[nodiscard]] boost::json::object drive_request(const DiskOption& disk, std::string_view id);

// vm.json and back.
[[nodiscard]] boost::json::object to_json(const DiskOption& disk);
[[nodiscard]] DiskOption disk_from_json(const boost::json::object& object);  // throws on bad shape

}  // namespace masu::cli
