#include "vmm/snapshot/memory_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "base/bytes.hpp"
#include "base/file_bytes.hpp"

namespace masu::snapshot {

namespace {

constexpr std::size_t page_size = guest_page;
constexpr std::size_t chunk_size = 2 * MiB;

Result<> write_all(int fd, std::span<const std::byte> bytes, std::uint64_t offset,
                   const std::string& path) {
    if (const auto written = write_at(fd, bytes, offset); !written)
        return fail_errno(written.error().os_errno, "cannot write guest memory to {}", path);
    return {};
}

// What /proc/self/pagemap says of this process's pages.
class PageMap {
  public:
    // One chunk's worth of pages from `start`; empty where the kernel does not tell.
    [[nodiscard]] std::span<const std::uint64_t> look(const std::byte* start, std::size_t pages) {
        const auto offset =
            reinterpret_cast<std::uintptr_t>(start) / page_size * sizeof(entries_[0]);
        const auto wanted = pages * sizeof(entries_[0]);
        if (!file_ || ::pread(file_.get(), entries_.data(), wanted, static_cast<off_t>(offset)) !=
                          static_cast<ssize_t>(wanted))
            return {};
        return std::span(entries_).first(pages);
    }
    // Touched at some time: in the page tables, or swapped out.
    static bool in_use(std::uint64_t entry) { return (entry & (present | swapped)) != 0; }
    // The same, and no page of a file.
    static bool own(std::uint64_t entry) {
        return (entry & swapped) != 0 || ((entry & present) != 0 && (entry & file_or_shared) == 0);
    }

  private:
    static constexpr std::uint64_t present = std::uint64_t{1} << 63;
    static constexpr std::uint64_t swapped = std::uint64_t{1} << 62;
    static constexpr std::uint64_t file_or_shared = std::uint64_t{1} << 61;
    Fd file_{::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC)};
    std::array<std::uint64_t, chunk_size / page_size> entries_{};
};

// look(first page, entries of it and those that follow) for each chunk of memory.
template <class Look>
void for_each_chunk(const kvm::GuestRam& ram, Look look) {
    PageMap map;
    for (std::size_t start = 0; start < ram.size(); start += chunk_size) {
        const auto count = std::min(chunk_size, ram.size() - start) / page_size;
        look(start / page_size, count, map.look(ram.bytes().data() + start, count));
    }
}

}  // namespace

Result<> size_memory(int fd, std::uint64_t size, const std::string& path) {
    if (::ftruncate(fd, static_cast<off_t>(size)) < 0)
        return fail_errno(errno, "cannot give {} the size of guest memory", path);
    return {};
}

Result<> sync_memory(int fd, const std::string& path) {
    if (::fdatasync(fd) < 0)
        return fail_errno(errno, "cannot sync {}", path);
    return {};
}

Result<std::uint64_t> write_memory(const kvm::GuestRam& ram, int fd, const std::string& path) {
    TRY(size_memory(fd, ram.size(), path));
    PageMap map;
    std::uint64_t written = 0;
    const auto bytes = ram.bytes();
    for (std::size_t start = 0; start < bytes.size(); start += chunk_size) {
        const auto chunk = bytes.subspan(start, std::min(chunk_size, bytes.size() - start));
        const auto pages = chunk.size() / page_size;
        // Untouched pages of an anonymous mapping are zero; reading them would make them present.
        const auto entries =
            ram.anonymous() ? map.look(chunk.data(), pages) : std::span<const std::uint64_t>();
        const auto holds_data = [&](std::size_t page) {
            return (entries.empty() || PageMap::in_use(entries[page])) &&
                   !is_zero(chunk.subspan(page * page_size, page_size));
        };
        // Runs of pages with data, one write each.
        for (std::size_t page = 0; page < pages; ++page) {
            if (!holds_data(page))
                continue;
            const auto first = page;
            while (page < pages && holds_data(page))
                ++page;
            const auto run = chunk.subspan(first * page_size, (page - first) * page_size);
            TRY(write_all(fd, run, start + first * page_size, path));
            written += run.size();
        }
    }
    return written;
}

namespace {

Result<> leave_out(int fd, std::uint64_t offset, std::span<const std::byte> zeros,
                   const std::string& path) {
    if (::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                    static_cast<off_t>(zeros.size())) == 0)
        return {};
    // A file system without holes.
    return write_all(fd, zeros, offset, path);
}

}  // namespace

Result<std::uint64_t> write_sparse(std::span<const std::byte> bytes, int fd, std::uint64_t offset,
                                   Zeros zeros, const std::string& path) {
    std::uint64_t written = 0;
    for (std::size_t start = 0; start < bytes.size();) {
        const auto zero_at = [&](std::size_t place) {
            return zeros == Zeros::Hole && is_zero(bytes.subspan(place, page_size));
        };
        const bool zero = zero_at(start);
        auto end = start + page_size;
        while (end < bytes.size() && zero_at(end) == zero)
            end += page_size;
        const auto part = bytes.subspan(start, end - start);
        if (zero) {
            TRY(leave_out(fd, offset + start, part, path));
        } else {
            TRY(write_all(fd, part, offset + start, path));
            written += part.size();
        }
        start = end;
    }
    return written;
}

Result<std::uint64_t> write_pages(const kvm::GuestRam& ram, const PageSet& pages, int fd,
                                  Zeros zeros, const std::string& path,
                                  const std::stop_token& stop) {
    std::uint64_t written = 0;
    for (const auto& run : pages.runs()) {
        const auto end = (run.first + run.count) * page_size;
        for (auto start = run.first * page_size; start < end; start += chunk_size) {
            if (stop.stop_requested())
                return fail("the save to {} was given up", path);
            const auto chunk = ram.bytes().subspan(start, std::min(chunk_size, end - start));
            written += TRY(write_sparse(chunk, fd, start, zeros, path));
        }
    }
    return written;
}

PageSet touched_pages(const kvm::GuestRam& ram) {
    PageSet pages(ram.size() / page_size);
    for_each_chunk(ram, [&](std::size_t first, std::size_t count, auto entries) {
        for (std::size_t i = 0; i < count; ++i)
            if (entries.empty() ||
                (ram.anonymous() ? PageMap::in_use(entries[i]) : PageMap::own(entries[i])))
                pages.add(first + i);
    });
    return pages;
}

Result<PresentPages> present_pages(const kvm::GuestRam& ram) {
    PresentPages pages{.own = PageSet(ram.size() / page_size),
                       .shared = PageSet(ram.size() / page_size)};
    bool told = true;
    for_each_chunk(ram, [&](std::size_t first, std::size_t, auto entries) {
        told = told && !entries.empty();
        for (std::size_t i = 0; i < entries.size(); ++i)
            if (PageMap::own(entries[i]))
                pages.own.add(first + i);
            else if (PageMap::in_use(entries[i]))
                pages.shared.add(first + i);
    });
    if (!told)
        return fail("the kernel does not tell which pages are in use (/proc/self/pagemap)");
    return pages;
}

Result<Fd> open_memory_file(const std::string& path, std::uint64_t size) {
    Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file)
        return fail_errno(errno, "cannot open the snapshot's memory file {}", path);
    struct stat status{};
    if (::fstat(file.get(), &status) < 0)
        return fail_errno(errno, "cannot look at the snapshot's memory file {}", path);
    if (!S_ISREG(status.st_mode) || static_cast<std::uint64_t>(status.st_size) != size)
        return fail(
            "the memory file {} has {} bytes, and the snapshot's machine {}: it belongs to "
            "another snapshot or is cut off",
            path, status.st_size, size);
    return file;
}

}  // namespace masu::snapshot
