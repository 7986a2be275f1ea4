#include "devices/legacy/i8042.hpp"

#include <algorithm>
#include <span>
#include <utility>

namespace masu::legacy {
namespace {

enum Port : std::uint64_t { Data = 0, SystemPortB = 1, Command = 4 };

constexpr std::uint8_t status_output_full = 1 << 0;
constexpr std::uint8_t status_system = 1 << 2;
constexpr std::uint8_t status_last_was_command = 1 << 3;
constexpr std::uint8_t status_not_locked = 1 << 4;

constexpr std::uint8_t control_interrupt = 1 << 0;
constexpr std::uint8_t control_system = 1 << 2;
constexpr std::uint8_t control_keyboard_off = 1 << 4;
constexpr std::uint8_t control_translate = 1 << 6;

constexpr std::uint8_t output_port_not_reset = 1 << 0;

// Controller commands (IBM PS/2 technical reference, keyboard controller).
constexpr std::uint8_t read_control = 0x20;
constexpr std::uint8_t write_control = 0x60;
constexpr std::uint8_t test_mouse_port = 0xa9;
constexpr std::uint8_t self_test = 0xaa;
constexpr std::uint8_t test_keyboard_port = 0xab;
constexpr std::uint8_t disable_keyboard = 0xad;
constexpr std::uint8_t enable_keyboard = 0xae;
constexpr std::uint8_t read_input_port = 0xc0;
constexpr std::uint8_t read_output_port = 0xd0;
constexpr std::uint8_t write_output_port = 0xd1;
constexpr std::uint8_t write_keyboard_output = 0xd2;
constexpr std::uint8_t write_mouse_output = 0xd3;
constexpr std::uint8_t write_mouse = 0xd4;
constexpr std::uint8_t pulse_output = 0xf0;  // low nibble: lines not to pulse

constexpr std::uint8_t self_test_passed = 0x55;
constexpr std::uint8_t port_test_passed = 0x00;
constexpr std::uint8_t port_clock_stuck_low = 0x01;  // nothing is connected

// Keyboard commands and replies.
constexpr std::uint8_t set_leds = 0xed;
constexpr std::uint8_t echo = 0xee;
constexpr std::uint8_t scan_code_set = 0xf0;
constexpr std::uint8_t identify = 0xf2;
constexpr std::uint8_t set_rate = 0xf3;
constexpr std::uint8_t enable_scanning = 0xf4;
constexpr std::uint8_t disable_scanning = 0xf5;
constexpr std::uint8_t set_defaults = 0xf6;
constexpr std::uint8_t reset_keyboard = 0xff;
constexpr std::uint8_t acknowledge = 0xfa;
constexpr std::uint8_t resend = 0xfe;
constexpr std::uint8_t test_passed = 0xaa;

// Ctrl, Alt, Delete down, then up in reverse: as scan code set 2, and as the controller translates
// it to set 1.
constexpr std::array<std::uint8_t, 11> ctrl_alt_del_set2{0x14, 0x11, 0xe0, 0x71, 0xe0, 0xf0,
                                                         0x71, 0xf0, 0x11, 0xf0, 0x14};
constexpr std::array<std::uint8_t, 8> ctrl_alt_del_set1{0x1d, 0x38, 0xe0, 0x53,
                                                        0xe0, 0xd3, 0xb8, 0x9d};

}  // namespace

bool KeyQueue::push(std::uint8_t byte) {
    if (count >= bytes.size())
        return false;
    bytes[(head + count) % bytes.size()] = byte;
    ++count;
    return true;
}

void KeyQueue::push_front(std::uint8_t byte) {
    if (count >= bytes.size())
        return;
    head = static_cast<std::uint8_t>((head + bytes.size() - 1) % bytes.size());
    bytes[head] = byte;
    ++count;
}

std::uint8_t KeyQueue::pop() {
    const auto byte = bytes[head];
    head = static_cast<std::uint8_t>((head + 1) % bytes.size());
    --count;
    return byte;
}

I8042::I8042(InterruptLine& line, std::function<void()> reset)
    : line_(line), reset_(std::move(reset)) {}

std::uint8_t I8042::read_register(std::uint64_t offset) {
    const std::lock_guard lock(mutex_);
    switch (offset) {
        case Data:
            return take_output();
        case SystemPortB:
            // Timer 2's output stays high, so that no kernel waits for a timer that is not there.
            return 0x20;
        case Command:
            return status();
        default:
            return 0xff;
    }
}

void I8042::write_register(std::uint64_t offset, std::uint8_t value) {
    bool reset = false;
    {
        const std::lock_guard lock(mutex_);
        if (offset == Command) {
            state_.last_was_command = true;
            reset = controller_command(value);
        } else if (offset == Data) {
            state_.last_was_command = false;
            const auto command = std::exchange(state_.pending_command, std::uint8_t{0});
            if (command != 0)
                reset = controller_data(command, value);
            else if (state_.pending_keyboard != 0)
                keyboard_parameter(std::exchange(state_.pending_keyboard, std::uint8_t{0}), value);
            else
                keyboard_byte(value);
        }
        fill_output();
    }
    if (reset)
        reset_();
}

std::uint8_t I8042::status() const {
    std::uint8_t value = status_not_locked;
    if (state_.output_full)
        value |= status_output_full;
    if ((state_.control & control_system) != 0)
        value |= status_system;
    if (state_.last_was_command)
        value |= status_last_was_command;
    return value;
}

bool I8042::controller_command(std::uint8_t command) {
    state_.pending_command = 0;
    switch (command) {
        case read_control:
            reply(state_.control);
            return false;
        case test_mouse_port:
            reply(port_clock_stuck_low);
            return false;
        case self_test:
            state_.control |= control_system;
            reply(self_test_passed);
            return false;
        case test_keyboard_port:
            reply(port_test_passed);
            return false;
        case disable_keyboard:
            state_.control |= control_keyboard_off;
            return false;
        case enable_keyboard:
            state_.control &= static_cast<std::uint8_t>(~control_keyboard_off);
            return false;
        case read_input_port:
            reply(0x80);  // keyboard not inhibited
            return false;
        case read_output_port:
            reply(state_.output_port);
            return false;
        case write_control:
        case write_output_port:
        case write_keyboard_output:
        case write_mouse_output:
        case write_mouse:
            state_.pending_command = command;
            return false;
        default:
            return (command & 0xf0) == pulse_output && (command & output_port_not_reset) == 0;
    }
}

bool I8042::controller_data(std::uint8_t command, std::uint8_t value) {
    switch (command) {
        case write_control:
            state_.control = value;
            update_line();
            return false;
        case write_output_port:
            // Stays with its reset bit high: the machine that comes back is a new one.
            state_.output_port = value | output_port_not_reset;
            return (value & output_port_not_reset) == 0;
        case write_keyboard_output:
        case write_mouse_output:
            // There is no mouse port; that the byte comes back as the keyboard's tells drivers so.
            reply(value);
            return false;
        default:  // write_mouse: nobody there
            return false;
    }
}

void I8042::keyboard_byte(std::uint8_t value) {
    auto& queue = state_.keyboard;
    switch (value) {
        case set_leds:
        case scan_code_set:
        case set_rate:
            state_.pending_keyboard = value;
            queue.push(acknowledge);
            break;
        case echo:
            queue.push(echo);
            break;
        case identify:
            queue.push(acknowledge);
            queue.push(0xab);
            queue.push((state_.control & control_translate) != 0 ? 0x41 : 0x83);
            break;
        case enable_scanning:
            state_.scanning = true;
            queue.push(acknowledge);
            break;
        case disable_scanning:
        case set_defaults:
            state_.scanning = value == set_defaults && state_.scanning;
            queue.push(acknowledge);
            break;
        case reset_keyboard:
            queue = {};
            state_.scanning = true;
            queue.push(acknowledge);
            queue.push(test_passed);
            break;
        default:
            queue.push(resend);
            break;
    }
}

void I8042::keyboard_parameter(std::uint8_t command, std::uint8_t value) {
    state_.keyboard.push(acknowledge);
    if (command == scan_code_set && value == 0)
        state_.keyboard.push((state_.control & control_translate) != 0 ? 0x41 : 0x02);
}

std::uint8_t I8042::take_output() {
    if (!state_.output_full)
        return state_.output_buffer;
    const auto value = state_.output_buffer;
    state_.output_full = false;
    update_line();  // falls between two bytes, so that each is an edge
    fill_output();
    return value;
}

// The controller has one output buffer: its reply replaces a reply that nobody read, as drivers
// that give up on a command expect. A keyboard byte in its way goes back and waits.
void I8042::reply(std::uint8_t value) {
    if (state_.output_full && !state_.output_is_reply)
        state_.keyboard.push_front(state_.output_buffer);
    state_.output_full = false;
    update_line();
    state_.output_buffer = value;
    state_.output_full = true;
    state_.output_is_reply = true;
}

void I8042::fill_output() {
    const bool keyboard_on = (state_.control & control_keyboard_off) == 0;
    if (!state_.output_full && keyboard_on && state_.keyboard.count > 0) {
        state_.output_buffer = state_.keyboard.pop();
        state_.output_full = true;
        state_.output_is_reply = false;
    }
    update_line();
}

void I8042::update_line() {
    const bool asserted = state_.output_full && (state_.control & control_interrupt) != 0;
    if (asserted == line_asserted_)
        return;
    line_asserted_ = asserted;
    line_.set(asserted);
}

bool I8042::send_ctrl_alt_del() {
    const std::lock_guard lock(mutex_);
    const bool listening = state_.scanning && (state_.control & control_interrupt) != 0 &&
                           (state_.control & control_keyboard_off) == 0;
    const std::span<const std::uint8_t> keys =
        (state_.control & control_translate) != 0
            ? std::span<const std::uint8_t>(ctrl_alt_del_set1)
            : std::span<const std::uint8_t>(ctrl_alt_del_set2);
    if (!listening || state_.keyboard.room() < keys.size())
        return false;
    for (const auto key : keys)
        state_.keyboard.push(key);
    fill_output();
    return true;
}

I8042State I8042::save() const {
    const std::lock_guard lock(mutex_);
    return state_;
}

void I8042::restore(const I8042State& state) {
    const std::lock_guard lock(mutex_);
    state_ = state;
    state_.keyboard.head %= key_queue_size;
    state_.keyboard.count = std::min(state_.keyboard.count, key_queue_size);
    update_line();
}

}  // namespace masu::legacy
