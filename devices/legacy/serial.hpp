// A 16550A UART (COM1): the guest's console.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "base/event_loop.hpp"
#include "base/fd.hpp"
#include "base/metrics.hpp"
#include "base/result.hpp"
#include "devices/interrupt.hpp"
#include "devices/legacy/byte_device.hpp"

namespace masu::legacy {

inline constexpr std::uint64_t serial_port_count = 8;
inline constexpr std::size_t serial_fifo_size = 16;
// Output waiting for the loop; when less than a FIFO is free, the guest sees a busy transmitter.
inline constexpr std::size_t serial_output_limit = 64 * 1024;
// Input waiting for the guest, beside its FIFO.
inline constexpr std::size_t serial_input_limit = 4 * 1024;

// The registers and the receive FIFO (National PC16550D).
struct SerialState {
    std::uint8_t ier = 0;
    std::uint8_t fcr = 0;  // FIFO enable and trigger bits only; the reset bits act and go
    std::uint8_t lcr = 0x03;
    std::uint8_t mcr = 0;
    std::uint8_t lsr_errors = 0;  // overrun; THRE, TEMT and DR are computed
    std::uint8_t msr = 0xb0;      // DCD, DSR, CTS: a terminal is there
    std::uint8_t scr = 0;
    std::uint16_t divisor = 12;
    bool thre_pending = false;  // the THRE interrupt's latch
    bool transmitter_busy = false;
    std::array<std::uint8_t, serial_fifo_size> fifo{};
    std::uint8_t fifo_count = 0;
};

// Bytes the guest sends gather in a bounded buffer and reach the sink in batches on the loop's
// thread; while that buffer is full the transmitter looks busy, so that no vCPU waits and no byte
// is lost. Bytes for the guest wait in a bounded queue of the host's until its FIFO has room.
// Breaks and line settings have no effect. Interrupt: level while any enabled cause is pending.
class Serial final : public ByteDevice {
  public:
    // Output of the guest, as it comes. Loop thread.
    using Sink = std::function<void(std::span<const std::byte>)>;

    // Counters "uart": out_bytes, out_dropped (sent to a busy transmitter), in_bytes, in_dropped
    // (refused by input()). `input_room` (may be empty) is called on the loop's thread once input()
    // has refused bytes and half of the queue is free again. All references are borrowed.
    [[nodiscard]] static Result<std::unique_ptr<Serial>> create(
        EventLoop& loop, InterruptLine& line, Metrics& metrics, Sink sink,
        std::function<void()> input_room = {});

    // Keys for the guest; returns how many bytes were taken (from the front). Any thread.
    [[nodiscard]] std::size_t input(std::span<const std::byte> bytes);

    // Hands what waits to the sink now: before the machine reports that the guest stopped.
    // Loop thread.
    void flush();

    [[nodiscard]] SerialState save() const;
    void restore(const SerialState& state);

  private:
    Serial(EventFd wake, InterruptLine& line, Metrics& metrics, Sink sink,
           std::function<void()> input_room);

    std::uint8_t read_register(std::uint64_t offset) override;
    void write_register(std::uint64_t offset, std::uint8_t value) override;

    // All below: with mutex_ held.
    [[nodiscard]] std::uint8_t interrupt_identification() const;
    [[nodiscard]] std::uint8_t line_status() const;
    [[nodiscard]] std::size_t fifo_capacity() const;
    [[nodiscard]] std::uint8_t receive();
    void transmit(std::uint8_t value);
    void write_ier(std::uint8_t value);
    void write_fcr(std::uint8_t value);
    void write_mcr(std::uint8_t value);
    void push_fifo(std::uint8_t value);
    void refill_fifo();
    void update_line();

    EventFd wake_;
    InterruptLine& line_;
    Sink sink_;
    std::function<void()> input_room_;
    Counter& out_bytes_;
    Counter& out_dropped_;
    Counter& in_bytes_;
    Counter& in_dropped_;

    mutable std::mutex mutex_;
    SerialState state_;
    bool line_asserted_ = false;
    std::vector<std::byte> output_;    // filled by vCPU threads
    std::vector<std::byte> draining_;  // loop thread only, swapped with output_
    std::deque<std::uint8_t> input_;
    bool input_refused_ = false;

    EventLoop::Watch watch_;  // last: its handler uses all of the above
};

}  // namespace masu::legacy
