// Guest memory as a file: the regions one after another in guest-physical order, pages of zeros
// left out as holes.
#pragma once

#include <cstdint>
#include <span>
#include <stop_token>
#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "vmm/kvm/guest_ram.hpp"
#include "vmm/page_set.hpp"

namespace masu::snapshot {

// Writes all of `ram` to the empty file `fd`, which gets its size. The bytes written, holes not
// counted. What changes meanwhile is there as it was or as it is.
[[nodiscard]] Result<std::uint64_t> write_memory(const kvm::GuestRam& ram, int fd,
                                                 const std::string& path);

// What becomes of a page of zeros.
enum class Zeros {
    Hole,  // in a file that holds all of memory
    Data,  // in one whose holes are the pages that are not its own
};
// Writes whole pages to their place in the file. The bytes written, holes not counted.
[[nodiscard]] Result<std::uint64_t> write_sparse(std::span<const std::byte> bytes, int fd,
                                                 std::uint64_t offset, Zeros zeros,
                                                 const std::string& path);

// Writes these pages over what the file `fd` has in their place. The bytes written. Asked to stop
// it fails soon.
[[nodiscard]] Result<std::uint64_t> write_pages(const kvm::GuestRam& ram, const PageSet& pages,
                                                int fd, Zeros zeros, const std::string& path,
                                                const std::stop_token& stop = {});

// The file gets the size of guest memory; all that is in it goes to the disk.
[[nodiscard]] Result<> size_memory(int fd, std::uint64_t size, const std::string& path);
[[nodiscard]] Result<> sync_memory(int fd, const std::string& path);

// The pages of which this process may hold more than it was given when `ram` was made: of anonymous
// memory those ever touched, of a file's those written to. By /proc/self/pagemap; all of them where
// the kernel does not tell.
[[nodiscard]] PageSet touched_pages(const kvm::GuestRam& ram);

// What of memory that is mapped from a file is in this process's page tables: its own copies, and
// pages of the file. Fails where the kernel does not tell.
struct PresentPages {
    PageSet own;
    PageSet shared;
};
[[nodiscard]] Result<PresentPages> present_pages(const kvm::GuestRam& ram);

// To read, or to be put into a GuestRam. Refuses one of another size. The file must not change
// while any VM runs from it.
[[nodiscard]] Result<Fd> open_memory_file(const std::string& path, std::uint64_t size);

}  // namespace masu::snapshot
