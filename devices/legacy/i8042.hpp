// The i8042 keyboard controller: a reset line, and just enough keyboard for Ctrl-Alt-Del.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <mutex>

#include "devices/interrupt.hpp"
#include "devices/legacy/byte_device.hpp"

namespace masu::legacy {

inline constexpr std::uint8_t key_queue_size = 32;

// Bytes on their way to the guest; what does not fit is dropped, as a real keyboard does.
struct KeyQueue {
    std::array<std::uint8_t, key_queue_size> bytes{};
    std::uint8_t head = 0;
    std::uint8_t count = 0;

    bool push(std::uint8_t byte);
    void push_front(std::uint8_t byte);
    std::uint8_t pop();  // count > 0
    [[nodiscard]] std::size_t room() const { return bytes.size() - count; }
};

struct I8042State {
    std::uint8_t control = 0;           // the controller's command byte
    std::uint8_t pending_command = 0;   // controller command that awaits its data byte, or 0
    std::uint8_t pending_keyboard = 0;  // keyboard command that awaits its data byte, or 0
    std::uint8_t output_port = 0x03;    // bit 0: not reset, bit 1: A20
    std::uint8_t output_buffer = 0;
    bool output_full = false;
    bool output_is_reply = false;   // output_buffer is the controller's, not the keyboard's
    bool last_was_command = false;  // status bit 3
    bool scanning = false;          // the keyboard reports keys
    KeyQueue keyboard;
};

// Ports 0x60-0x64: data at offset 0, the PC's system port B at 1, command and status at 4.
// There is no mouse port. Thread-safe.
class I8042 final : public ByteDevice {
  public:
    static constexpr std::uint64_t port_count = 5;

    // `line` is edge-triggered (GSI 1) and borrowed. `reset` is called on the vCPU thread that
    // pulsed the reset line, with no lock held, each time.
    I8042(InterruptLine& line, std::function<void()> reset);

    // Presses and releases the keys. False, and nothing is sent, unless a driver enabled the
    // keyboard, its interrupt, and has read earlier keys. Any thread.
    [[nodiscard]] bool send_ctrl_alt_del();

    [[nodiscard]] I8042State save() const;
    void restore(const I8042State& state);

  private:
    std::uint8_t read_register(std::uint64_t offset) override;
    void write_register(std::uint64_t offset, std::uint8_t value) override;

    // With mutex_ held. True: the guest pulled the reset line.
    [[nodiscard]] bool controller_command(std::uint8_t command);
    [[nodiscard]] bool controller_data(std::uint8_t command, std::uint8_t value);
    [[nodiscard]] std::uint8_t status() const;
    [[nodiscard]] std::uint8_t take_output();
    void keyboard_byte(std::uint8_t value);
    void keyboard_parameter(std::uint8_t command, std::uint8_t value);
    void reply(std::uint8_t value);
    void fill_output();
    void update_line();

    InterruptLine& line_;
    std::function<void()> reset_;
    mutable std::mutex mutex_;
    I8042State state_;
    bool line_asserted_ = false;
};

}  // namespace masu::legacy
