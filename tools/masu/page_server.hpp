// The page server: a process that brings the memory of one restored VM in from a compressed memory
// file, as the VM touches it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace masu::cli {

// A range of the monitor's memory and where it lies in the memory file; bytes.
struct ServedRegion {
    std::uint64_t address = 0;
    std::uint64_t size = 0;
    std::uint64_t offset = 0;
    bool operator==(const ServedRegion&) const = default;
};

// What a monitor sends along with its userfaultfd. May be anyone's: regions must be of whole pages
// of 4 KiB, lie within the file, and overlap neither there nor in memory.
[[nodiscard]] Result<std::vector<ServedRegion>> parse_served_regions(std::string_view json,
                                                                     std::uint64_t memory_bytes);

// Serves the one monitor that connects to `listener` (a listening Unix stream socket), from the
// compressed memory of the snapshot in `directory`; first of all, and without being asked, the
// pages that its working-set file lists. Returns when the monitor has gone; an error has been told
// to the monitor. `hope`, if it is one, is a pipe whose end says that no monitor will come.
[[nodiscard]] Result<> serve_pages(const std::string& directory, Fd listener, bool working_set,
                                   Fd hope = {});

// Starts `masu page-server` in the background, which listens at `socket` when this returns. What it
// says goes to `log`. It waits for a monitor as long as somebody has a copy of the descriptor: the
// monitor's process is to inherit it.
[[nodiscard]] Result<Fd> start_page_server(const std::string& directory, const std::string& socket,
                                           const std::string& log, bool working_set);

}  // namespace masu::cli
