// Parsing of virtio-blk requests.
#include "devices/block/block_request.hpp"

#include "devices/block/disk.hpp"

namespace masu::block {
namespace {

// struct virtio_blk_req, its device-readable head (5.2.6).
struct WireHeader {
    std::uint32_t type;
    std::uint32_t reserved;
    std::uint64_t sector;
};
static_assert(sizeof(WireHeader) == request_header_size);

// struct virtio_blk_discard_write_zeroes.
struct WireRange {
    std::uint64_t sector;
    std::uint32_t num_sectors;
    std::uint32_t flags;
};
static_assert(sizeof(WireRange) == 16);
constexpr std::uint32_t range_unmap = 1;

enum WireType : std::uint32_t {
    type_in = 0,
    type_out = 1,
    type_flush = 4,
    type_get_id = 8,
    type_discard = 11,
    type_write_zeroes = 13,
};

using Kind = BlockRequest::Kind;
using Limits = BlockRequest::Limits;

void refuse(BlockRequest& request, Status status) noexcept {
    request.kind = Kind::Bad;
    request.status = status;
}

bool inside(std::uint64_t sector, std::uint64_t size, const Limits& limits) noexcept {
    return sector <= limits.capacity / sector_size &&
           size <= limits.capacity - sector * sector_size;
}

// `stray`: bytes in the part of the chain where this kind has none.
void judge_transfer(BlockRequest& request, Kind kind, const WireHeader& header,
                    std::uint64_t data_size, std::uint64_t stray, const Limits& limits) noexcept {
    if (stray != 0 || data_size % sector_size != 0 || !inside(header.sector, data_size, limits) ||
        (kind == Kind::Write && limits.read_only)) {
        refuse(request, Status::IoError);
        return;
    }
    request.kind = kind;
    request.offset = header.sector * sector_size;
    request.data_size = data_size;
}

void judge_ranges(BlockRequest& request, Kind kind, const virtio::Chain& chain,
                  std::uint64_t data_size, const Limits& limits) noexcept {
    const auto needed = kind == Kind::Discard ? feature::discard : feature::write_zeroes;
    if ((limits.features & needed) == 0) {
        refuse(request, Status::Unsupported);
        return;
    }
    if (limits.read_only || data_size == 0 || data_size % sizeof(WireRange) != 0 ||
        data_size / sizeof(WireRange) > max_range_segments) {
        refuse(request, Status::IoError);
        return;
    }
    std::array<WireRange, max_range_segments> wire{};
    const auto segments = std::span(wire).first(data_size / sizeof(WireRange));
    if (chain.read(request_header_size, std::as_writable_bytes(segments)) != data_size) {
        refuse(request, Status::IoError);
        return;
    }
    for (const auto& segment : segments) {
        // Unknown flags, and unmap in a discard, MUST be answered with UNSUPP (5.2.6.2).
        const auto known = kind == Kind::Discard ? 0U : range_unmap;
        if ((segment.flags & ~known) != 0) {
            refuse(request, Status::Unsupported);
            return;
        }
        const std::uint64_t size = segment.num_sectors * sector_size;
        if (segment.num_sectors > max_range_sectors || !inside(segment.sector, size, limits)) {
            refuse(request, Status::IoError);
            return;
        }
        if (size != 0)
            request.ranges[request.range_count++] = {
                segment.sector * sector_size, size,
                kind == Kind::Discard || (segment.flags & range_unmap) != 0};
    }
    request.kind = kind;
}

}  // namespace

std::expected<BlockRequest, BlockRequest::Malformed> BlockRequest::parse(
    const virtio::Chain& chain, const Limits& limits) noexcept {
    WireHeader header{};
    if (chain.writable_size() == 0)
        return std::unexpected(Malformed::NoStatus);
    if (chain.read(0, std::as_writable_bytes(std::span(&header, 1))) != sizeof header)
        return std::unexpected(Malformed::NoHeader);
    BlockRequest request;
    request.status_offset = chain.writable_size() - 1;
    const std::uint64_t out_size = chain.readable_size() - sizeof header;
    const std::uint64_t in_size = request.status_offset;
    switch (header.type) {
        case type_in:
            judge_transfer(request, Kind::Read, header, in_size, out_size, limits);
            break;
        case type_out:
            judge_transfer(request, Kind::Write, header, out_size, in_size, limits);
            break;
        case type_flush:
            request.kind = Kind::Flush;
            break;
        case type_get_id:
            request.kind = Kind::GetId;
            request.data_size = in_size < id_size ? in_size : id_size;
            break;
        case type_discard:
            judge_ranges(request, Kind::Discard, chain, out_size, limits);
            break;
        case type_write_zeroes:
            judge_ranges(request, Kind::WriteZeroes, chain, out_size, limits);
            break;
        default:
            refuse(request, Status::Unsupported);
            break;
    }
    return request;
}

const char* to_string(BlockRequest::Malformed malformed) noexcept {
    return malformed == BlockRequest::Malformed::NoHeader ? "block request without a whole header"
                                                          : "block request without a status byte";
}

}  // namespace masu::block
