#include "firmware/platform/serial.hpp"

#include "firmware/platform/cpu.hpp"

namespace masu::firmware::serial {
namespace {

// PC16550D, 8.0
constexpr std::uint16_t interrupt_enable = 1;
constexpr std::uint16_t fifo_control = 2;
constexpr std::uint16_t line_control = 3;
constexpr std::uint16_t modem_control = 4;
constexpr std::uint16_t line_status = 5;
constexpr std::uint8_t data_ready = 1 << 0;
constexpr std::uint8_t transmitter_empty = 1 << 5;
constexpr unsigned fifo_size = 16;
// A transmitter that stays full must not hang the boot: what it would not take is dropped.
constexpr unsigned patience = 1'000'000;

constinit std::uint16_t base = 0x3f8;
constinit unsigned room = 0;

}  // namespace

void init(std::uint16_t port) noexcept {
    base = port;
    cpu::out8(base + interrupt_enable, 0);
    cpu::out8(base + line_control, 0x83);  // DLAB: the divisor
    cpu::out8(base, 1);                    // 115200
    cpu::out8(base + 1, 0);
    cpu::out8(base + line_control, 0x03);  // 8n1
    cpu::out8(base + fifo_control, 0x01);  // FIFOs on
    cpu::out8(base + modem_control, 0x0b);
}

void write(char c) noexcept {
    // One look at the line status is good for a FIFO's worth: each access leaves the guest.
    for (unsigned i = 0; room == 0 && i < patience; ++i) {
        if ((cpu::in8(base + line_status) & transmitter_empty) != 0)
            room = fifo_size;
        else
            cpu::pause();
    }
    if (room == 0)
        return;
    --room;
    cpu::out8(base, static_cast<std::uint8_t>(c));
}

bool has_input() noexcept {
    return (cpu::in8(base + line_status) & data_ready) != 0;
}

std::optional<std::uint8_t> read() noexcept {
    if (!has_input())
        return std::nullopt;
    return cpu::in8(base);
}

}  // namespace masu::firmware::serial
