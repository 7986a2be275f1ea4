#include "vmm/snapshot/memory_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "base/bytes.hpp"

namespace masu::snapshot {

namespace {

constexpr std::size_t page_size = 4096;
constexpr std::size_t chunk_size = 2 * MiB;

bool is_zero(std::span<const std::byte> page) {
    // Comparing a page with itself, shifted: memcmp is as fast as this machine can be.
    return page[0] == std::byte{0} &&
           std::memcmp(page.data(), page.data() + 1, page.size() - 1) == 0;
}

Result<> write_all(int fd, std::span<const std::byte> bytes, std::uint64_t offset,
                   const std::string& path) {
    while (!bytes.empty()) {
        const auto count = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return fail_errno(errno, "cannot write guest memory to {}", path);
        bytes = bytes.subspan(static_cast<std::size_t>(count));
        offset += static_cast<std::uint64_t>(count);
    }
    return {};
}

// Which pages of this process have ever been touched (/proc/self/pagemap: present or swapped out).
// The others of an anonymous mapping are zero, and reading them would only make them present.
class Touched {
  public:
    explicit Touched(bool anonymous)
        : pagemap_(anonymous ? ::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC) : -1) {}

    // One chunk's worth of pages from `start`; all of them where the kernel does not tell.
    [[nodiscard]] std::span<const bool> look(const std::byte* start, std::size_t pages) {
        constexpr std::uint64_t present_or_swapped = std::uint64_t{3} << 62;
        std::ranges::fill(touched_, true);
        const auto offset =
            reinterpret_cast<std::uintptr_t>(start) / page_size * sizeof(entries_[0]);
        const auto wanted = pages * sizeof(entries_[0]);
        if (pagemap_ && ::pread(pagemap_.get(), entries_.data(), wanted,
                                static_cast<off_t>(offset)) == static_cast<ssize_t>(wanted))
            for (std::size_t i = 0; i < pages; ++i)
                touched_[i] = (entries_[i] & present_or_swapped) != 0;
        return std::span(touched_).first(pages);
    }

  private:
    Fd pagemap_;
    std::array<std::uint64_t, chunk_size / page_size> entries_{};
    std::array<bool, chunk_size / page_size> touched_{};
};

}  // namespace

Result<std::uint64_t> write_memory(const kvm::GuestRam& ram, int fd, const std::string& path) {
    if (::ftruncate(fd, static_cast<off_t>(ram.size())) < 0)
        return fail_errno(errno, "cannot give {} the size of guest memory", path);
    Touched touched(ram.anonymous());
    std::uint64_t written = 0;
    const auto bytes = ram.bytes();
    for (std::size_t start = 0; start < bytes.size(); start += chunk_size) {
        const auto chunk = bytes.subspan(start, std::min(chunk_size, bytes.size() - start));
        const auto pages = touched.look(chunk.data(), chunk.size() / page_size);
        const auto holds_data = [&](std::size_t page) {
            return pages[page] && !is_zero(chunk.subspan(page * page_size, page_size));
        };
        // Runs of pages with data, one write each.
        for (std::size_t page = 0; page < pages.size(); ++page) {
            if (!holds_data(page))
                continue;
            const auto first = page;
            while (page < pages.size() && holds_data(page))
                ++page;
            const auto run = chunk.subspan(first * page_size, (page - first) * page_size);
            TRY(write_all(fd, run, start + first * page_size, path));
            written += run.size();
        }
    }
    if (::fsync(fd) < 0)
        return fail_errno(errno, "cannot sync {}", path);
    return written;
}

Result<kvm::GuestRam> map_memory(const std::string& path, std::uint64_t size) {
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
    return kvm::GuestRam::map_file(std::move(file), size);
}

}  // namespace masu::snapshot
