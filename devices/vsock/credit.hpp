// How much either side of a connection may still send (virtio 1.2, 5.10.6.3). All counts are modulo
// 2^32, as on the wire.
#pragma once

#include <cstdint>

namespace masu::vsock {

// What may be sent to the guest, by what it says of itself. It may say anything: then nothing is
// sent, or what its receive queue has room for.
class SendCredit {
  public:
    void update(std::uint32_t buf_alloc, std::uint32_t fwd_cnt) noexcept {
        buf_alloc_ = buf_alloc;
        fwd_cnt_ = fwd_cnt;
    }
    void sent(std::uint32_t bytes) noexcept { sent_ += bytes; }
    [[nodiscard]] std::uint32_t available() const noexcept {
        const std::uint32_t in_flight = sent_ - fwd_cnt_;
        return in_flight < buf_alloc_ ? buf_alloc_ - in_flight : 0;
    }

  private:
    std::uint32_t buf_alloc_ = 0;
    std::uint32_t fwd_cnt_ = 0;
    std::uint32_t sent_ = 0;
};

// What the guest may send: a buffer of `size` bytes, less what waits in it.
class ReceiveCredit {
  public:
    explicit ReceiveCredit(std::uint32_t size) noexcept : size_(size) {}

    // False when the guest sends more than it was told it may.
    [[nodiscard]] bool accept(std::uint32_t bytes) noexcept {
        if (bytes > size_ - (received_ - forwarded_))
            return false;
        received_ += bytes;
        return true;
    }
    void forward(std::uint32_t bytes) noexcept { forwarded_ += bytes; }
    // The guest believes that less than half of the buffer is free, and is wrong by more than a
    // little.
    [[nodiscard]] bool worth_telling() const noexcept {
        return received_ - told_ > size_ / 2 && forwarded_ - told_ >= size_ / 8;
    }
    // For a header on its way to the guest.
    [[nodiscard]] std::uint32_t buf_alloc() const noexcept { return size_; }
    [[nodiscard]] std::uint32_t fwd_cnt() const noexcept { return forwarded_; }
    void told() noexcept { told_ = forwarded_; }

  private:
    const std::uint32_t size_;
    std::uint32_t received_ = 0;
    std::uint32_t forwarded_ = 0;
    std::uint32_t told_ = 0;  // forwarded_ as the guest knows it
};

}  // namespace masu::vsock
