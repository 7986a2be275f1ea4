// Header, checks, and creation of overlay files.
#include "devices/block/overlay_format.hpp"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "base/atomic_file.hpp"
#include "base/bytes.hpp"
#include "base/fd.hpp"

namespace masu::block {
namespace {

constexpr std::array<char, 8> magic = {'M', 'A', 'S', 'U', 'O', 'V', 'L', '\n'};
constexpr std::uint32_t version = 1;
constexpr std::uint64_t samples = 64;

std::uint64_t checksum(const OverlayHeader& header) noexcept {
    return XXH64(&header, offsetof(OverlayHeader, checksum), 0);
}

std::string recorded_base(const OverlayHeader& header) {
    const auto size = std::min<std::size_t>(header.base_path_size, header.base_path.size());
    return {header.base_path.data(), size};
}

Result<> fill_new_file(int fd, const OverlayHeader& header, const std::string& path, bool synced) {
    const auto layout = OverlayLayout::of(header.virtual_size);
    if (::ftruncate(fd, static_cast<off_t>(layout.file_size)) < 0)
        return fail_errno(errno, "cannot give overlay {} its (sparse) size of {}", path,
                          format_size(layout.file_size));
    if (::pwrite(fd, &header, sizeof header, 0) != static_cast<ssize_t>(sizeof header) ||
        (synced && ::fsync(fd) < 0))
        return fail_errno(errno, "cannot write overlay {}", path);
    return {};
}

}  // namespace

OverlayLayout OverlayLayout::of(std::uint64_t virtual_size) noexcept {
    OverlayLayout layout;
    layout.virtual_size = virtual_size;
    const auto blocks = (virtual_size + overlay_block - 1) / overlay_block;
    layout.data_start = layout.bitmap_start + align_up((blocks + 7) / 8, overlay_block);
    layout.file_size = layout.data_start + blocks * overlay_block;
    return layout;
}

OverlayHeader make_overlay_header(std::uint64_t virtual_size, const BaseIdentity& base,
                                  const std::string& base_path) {
    const auto layout = OverlayLayout::of(virtual_size);
    OverlayHeader header{};
    header.magic = magic;
    header.version = version;
    header.block_size = overlay_block;
    header.virtual_size = virtual_size;
    header.bitmap_start = layout.bitmap_start;
    header.data_start = layout.data_start;
    header.base_size = base.size;
    header.base_mtime_ns = base.mtime_ns;
    header.base_fingerprint = base.fingerprint;
    const auto length = std::min(base_path.size(), header.base_path.size());
    header.base_path_size = static_cast<std::uint32_t>(length);
    std::memcpy(header.base_path.data(), base_path.data(), length);
    header.checksum = checksum(header);
    return header;
}

Result<OverlayLayout> check_overlay_header(const OverlayHeader& header, std::uint64_t file_size,
                                           const BaseIdentity& base, const std::string& path) {
    if (header.magic != magic)
        return fail(
            "overlay {} is no Masu overlay (wrong magic); give another path, or delete it "
            "to have a new one created",
            path);
    if (header.version != version)
        return fail(
            "overlay {} has format version {}, and this Masu knows version {}; open it "
            "with the Masu that wrote it",
            path, header.version, version);
    if (header.checksum != checksum(header))
        return fail(
            "overlay {} has a damaged header (its checksum is wrong); restore it from a "
            "copy, or delete it to start again from the base",
            path);
    if (header.block_size != overlay_block || header.virtual_size == 0 ||
        header.virtual_size > overlay_max_size || header.virtual_size % sector_size != 0 ||
        header.base_size > header.virtual_size)
        return fail(
            "overlay {} has a header that makes no sense; delete it to start again from "
            "the base",
            path);
    const auto layout = OverlayLayout::of(header.virtual_size);
    if (header.bitmap_start != layout.bitmap_start || header.data_start != layout.data_start)
        return fail(
            "overlay {} has a header that makes no sense; delete it to start again from "
            "the base",
            path);
    if (file_size < layout.file_size)
        return fail(
            "overlay {} is cut short ({} bytes of {}); restore it from a copy, or delete "
            "it to start again from the base",
            path, file_size, layout.file_size);
    const BaseIdentity recorded{header.base_size, header.base_mtime_ns, header.base_fingerprint};
    if (recorded != base) {
        const char* what = recorded.size != base.size           ? "size"
                           : recorded.mtime_ns != base.mtime_ns ? "modification time"
                                                                : "content";
        return fail(
            "overlay {} does not fit its base any more: the {} of {} is not what it was "
            "when the overlay was made; restore that base, or delete the overlay to start "
            "again from the new one",
            path, what, recorded_base(header));
    }
    return layout;
}

namespace {

struct Sample {
    std::uint64_t offset = 0;
    std::uint64_t size = 0;
};

// Whether all of it was there without the medium being asked.
bool read_cached(int fd, std::uint64_t offset, std::span<std::byte> to) {
    const iovec buffer{to.data(), to.size()};
    return ::preadv2(fd, &buffer, 1, static_cast<off_t>(offset), RWF_NOWAIT) ==
           static_cast<ssize_t>(to.size());
}

// All of them at once, so that they are not waited for one by one.
void ask_for(int fd, std::span<const Sample> wanted) {
    for (const auto& sample : wanted)
        ::posix_fadvise(fd, static_cast<off_t>(sample.offset), static_cast<off_t>(sample.size),
                        POSIX_FADV_WILLNEED);
}

Result<> read_waiting(int fd, std::uint64_t offset, std::span<std::byte> to) {
    const auto count = ::pread(fd, to.data(), to.size(), static_cast<off_t>(offset));
    if (count < 0)
        return fail_errno(errno, "cannot read {} bytes at {}", to.size(), offset);
    if (static_cast<std::size_t>(count) != to.size())
        return fail("there are fewer than {} bytes at {}", to.size(), offset);
    return {};
}

}  // namespace

Result<std::unique_ptr<OverlayHeader>> read_overlay_header(const File& store) {
    if (store.size() < sizeof(OverlayHeader))
        return fail(
            "overlay {} is cut short ({} bytes); restore it from a copy, or delete it to "
            "start again from the base",
            store.path(), store.size());
    auto header = std::make_unique<OverlayHeader>();
    const auto bytes = std::as_writable_bytes(std::span(header.get(), 1));
    if (auto read = read_waiting(store.fds().back(), 0, bytes); !read)
        return in_context("overlay " + store.path(), std::move(read).error());
    return header;
}

Result<std::uint64_t> fingerprint(const File& base) {
    const std::uint64_t blocks = (base.size() + overlay_block - 1) / overlay_block;
    const std::uint64_t count = std::min(blocks, samples);
    std::vector<Sample> wanted(count);
    for (std::uint64_t i = 0; i < count; ++i) {
        const std::uint64_t block = count == 1 ? 0 : i * (blocks - 1) / (count - 1);
        wanted[i] = {.offset = block * overlay_block,
                     .size = std::min(overlay_block, base.size() - block * overlay_block)};
    }
    std::vector<std::byte> bytes(count * overlay_block);
    const int fd = base.fds().back();
    bool asked = false;
    for (std::uint64_t i = 0; i < count; ++i) {
        const std::span<std::byte> to(bytes.data() + i * overlay_block, wanted[i].size);
        if (!asked && read_cached(fd, wanted[i].offset, to))
            continue;
        if (!asked)
            ask_for(fd, std::span(wanted).subspan(i));
        asked = true;
        TRY(read_waiting(fd, wanted[i].offset, to));
    }
    return XXH64(bytes.data(), bytes.size(), base.size());
}

namespace {

// Straight to its name: whoever could find half of it there is gone with it.
Result<> create_passing_file(const std::string& path, const OverlayHeader& header) {
    const Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!fd)
        return errno == EEXIST ? Result<>() : fail_errno(errno, "cannot create overlay {}", path);
    auto filled = fill_new_file(fd.get(), header, path, false);
    if (!filled)
        ::unlink(path.c_str());
    return filled;
}

}  // namespace

Result<> create_overlay_file(const std::string& path, const OverlayHeader& header, bool synced) {
    if (!synced)
        return create_passing_file(path, header);
    std::string temporary = path + ".XXXXXX";
    const Fd fd(::mkostemp(temporary.data(), O_CLOEXEC));
    if (!fd)
        return fail_errno(errno, "cannot create overlay {}", path);
    auto filled = fill_new_file(fd.get(), header, path, true);
    // link() rather than rename(): an overlay that appeared meanwhile is somebody's data.
    if (filled && ::link(temporary.c_str(), path.c_str()) < 0 && errno != EEXIST)
        filled = fail_errno(errno, "cannot create overlay {}", path);
    ::unlink(temporary.c_str());
    if (!filled)
        return filled;
    return sync_folder(folder_of(path));
}

}  // namespace masu::block
