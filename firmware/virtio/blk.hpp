// virtio-blk, polled: several large requests in flight (virtio 1.2, 5.2).
#pragma once

#include "firmware/fs/block_reader.hpp"
#include "firmware/virtio/queue.hpp"

namespace masu::firmware::virtio {

class Blk final : public BlockReader {
  public:
    // Takes over the device; nothing on failure, with a reason on the console.
    [[nodiscard]] static Blk* create(const Device& device) noexcept;

    [[nodiscard]] std::uint32_t block_size() const noexcept override { return block_size_; }
    [[nodiscard]] std::uint64_t block_count() const noexcept override { return block_count_; }
    [[nodiscard]] Result<> read(std::uint64_t lba, std::span<std::byte> to) noexcept override;
    [[nodiscard]] Result<> read_many(std::span<const BlockRead> reads) noexcept override;
    [[nodiscard]] Result<> write(std::uint64_t lba, std::span<const std::byte> from) noexcept;
    [[nodiscard]] Result<> flush() noexcept;
    [[nodiscard]] bool read_only() const noexcept { return read_only_; }
    [[nodiscard]] const Device& device() const noexcept { return device_; }
    // Gives the device back, so that it touches no memory any more.
    void stop() noexcept { reset(device_); }

  private:
    struct Request {
        std::uint32_t type;
        std::uint32_t reserved;
        std::uint64_t sector;
        std::uint8_t status;
    };
    struct Range {
        std::uint64_t sector;
        std::uint64_t address;
        std::uint64_t size;
    };
    [[nodiscard]] Result<> transfer(std::uint32_t type, std::span<const Range> ranges) noexcept;
    [[nodiscard]] bool post(std::uint16_t slot, std::uint32_t type, const Range& piece) noexcept;

    Device device_;
    Queue queue_;
    Request* requests_ = nullptr;  // one a slot
    std::uint32_t block_size_ = 512;
    std::uint64_t block_count_ = 0;
    std::uint32_t piece_max_ = 0;
    bool read_only_ = false;
    bool can_flush_ = false;
    bool dead_ = false;
};

}  // namespace masu::firmware::virtio
