// Finds the zeros, block by block.
#include "tools/masu/sparse_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "base/bytes.hpp"
#include "base/file_bytes.hpp"
#include "devices/block/disk.hpp"
#include "devices/block/overlay_format.hpp"

namespace masu::cli {
namespace {

constexpr std::uint64_t hole_unit = 4 * KiB;
constexpr std::array<std::byte, 64 * KiB> zeros{};

}  // namespace

Sha256::Sha256() : context_(::EVP_MD_CTX_new()) {
    ::EVP_DigestInit_ex(context_.get(), ::EVP_sha256(), nullptr);
}

void Sha256::add(std::span<const std::byte> bytes) {
    ::EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size());
}

void Sha256::add_zeros(std::uint64_t count) {
    while (count > 0) {
        const auto part = std::min<std::uint64_t>(count, zeros.size());
        add(std::span(zeros).first(part));
        count -= part;
    }
}

std::string Sha256::hex() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned size = 0;
    ::EVP_DigestFinal_ex(context_.get(), digest.data(), &size);
    std::string text;
    for (unsigned i = 0; i < size; ++i)
        text += fmt::format("{:02x}", digest[i]);
    return text;
}

Result<SparseFile> SparseFile::create(const std::string& path) {
    Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
    if (!fd)
        return fail_errno(errno, "cannot create {}", path);
    return SparseFile(std::move(fd), path);
}

std::unexpected<Error> SparseFile::failed(int error) const {
    if (error == ENOSPC || error == EDQUOT)
        return fail(
            "there is no room left for {} after {}; free some, or set MASU_STATE_DIR to a folder "
            "on a larger disk",
            path_, format_size(size_));
    return fail_errno(error, "cannot write {}", path_);
}

Result<> SparseFile::store(std::span<const std::byte> bytes, std::uint64_t offset) const {
    if (const auto written = write_at(fd_.get(), bytes, offset); !written)
        return failed(written.error().os_errno);
    return {};
}

Result<> SparseFile::write(std::span<const std::byte> bytes) {
    if (bytes.size() > block::overlay_max_size - size_)
        return fail("would make a disk larger than {}, which is the most there can be",
                    format_size(block::overlay_max_size));
    hash_.add(bytes);
    // Neighbouring blocks that hold something go in one write.
    std::size_t pending = 0;
    std::size_t at = 0;
    while (at < bytes.size()) {
        const auto to_boundary = hole_unit - (size_ + at) % hole_unit;
        const auto part = std::min<std::size_t>(to_boundary, bytes.size() - at);
        if (is_zero(bytes.subspan(at, part))) {
            TRY(store(bytes.subspan(pending, at - pending), size_ + pending));
            pending = at + part;
        }
        at += part;
    }
    TRY(store(bytes.subspan(pending), size_ + pending));
    size_ += bytes.size();
    return {};
}

Result<> SparseFile::skip(std::uint64_t count) {
    if (count > block::overlay_max_size - size_)
        return fail("would make a disk larger than {}, which is the most there can be",
                    format_size(block::overlay_max_size));
    hash_.add_zeros(count);
    size_ += count;
    return {};
}

Result<> SparseFile::finish() {
    TRY(skip(align_up(size_, block::sector_size) - size_));
    if (::ftruncate(fd_.get(), static_cast<off_t>(size_)) < 0 || ::fsync(fd_.get()) < 0)
        return failed(errno);
    return {};
}

}  // namespace masu::cli
