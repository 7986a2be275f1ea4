// One virtio-blk request, judged against every rule of virtio 1.2, 5.2.6, as a host value.
#pragma once

#include <array>
#include <cstdint>
#include <expected>
#include <span>

#include "devices/virtio/queue.hpp"

namespace masu::block {

// Feature bits (5.2.3).
namespace feature {
inline constexpr std::uint64_t seg_max = 1ULL << 2;
inline constexpr std::uint64_t read_only = 1ULL << 5;
inline constexpr std::uint64_t blk_size = 1ULL << 6;
inline constexpr std::uint64_t flush = 1ULL << 9;
inline constexpr std::uint64_t topology = 1ULL << 10;
inline constexpr std::uint64_t mq = 1ULL << 12;
inline constexpr std::uint64_t discard = 1ULL << 13;
inline constexpr std::uint64_t write_zeroes = 1ULL << 14;
}  // namespace feature

// VIRTIO_BLK_S_* (5.2.6).
enum class Status : std::uint8_t { Ok = 0, IoError = 1, Unsupported = 2 };

inline constexpr std::size_t request_header_size = 16;
inline constexpr std::size_t id_size = 20;  // VIRTIO_BLK_ID_BYTES
inline constexpr std::uint32_t max_range_segments = 16;
inline constexpr std::uint32_t max_range_sectors = 1U << 19;  // 256 MiB a discard or zero segment

struct BlockRequest {
    enum class Kind : std::uint8_t { Read, Write, Flush, GetId, Discard, WriteZeroes, Bad };
    struct Range {
        std::uint64_t offset = 0;  // bytes
        std::uint64_t size = 0;
        bool may_unmap = false;
    };

    Kind kind = Kind::Bad;
    Status status = Status::Ok;       // of a Bad request: what to answer
    std::uint64_t offset = 0;         // bytes on the disk
    std::uint64_t data_size = 0;      // bytes of data, without header and status
    std::uint64_t status_offset = 0;  // of the status byte in the chain's writable part
    std::uint32_t range_count = 0;    // of Discard and WriteZeroes; may be 0 when all are empty
    std::array<Range, max_range_segments> ranges;

    [[nodiscard]] bool modifies() const noexcept {
        return kind == Kind::Write || kind == Kind::Discard || kind == Kind::WriteZeroes;
    }

    // What a chain can lack that leaves no way to answer it: the device is to be reset.
    enum class Malformed : std::uint8_t { NoHeader, NoStatus };

    struct Limits {
        std::uint64_t capacity = 0;  // bytes
        bool read_only = false;
        std::uint64_t features = 0;  // negotiated
    };
    // Reads the header and any segments once. A request that breaks a rule but can be answered
    // comes back as Bad with its status.
    [[nodiscard]] static std::expected<BlockRequest, Malformed> parse(
        const virtio::Chain& chain, const Limits& limits) noexcept;
};

[[nodiscard]] const char* to_string(BlockRequest::Malformed malformed) noexcept;

}  // namespace masu::block
