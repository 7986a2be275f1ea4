#include "devices/legacy/saved_state.hpp"

namespace masu::legacy {

namespace {

struct SavedIoapic {
    std::array<std::uint64_t, ioapic_pin_count> entries;
    std::uint32_t lines;
    std::uint32_t id;
    std::uint8_t index;
    std::array<std::uint8_t, 7> reserved;
};
static_assert(PlainData<SavedIoapic> && sizeof(SavedIoapic) == 208);

struct SavedRtc {
    std::int64_t offset_seconds;
    std::array<std::uint8_t, cmos_size> memory;
    std::uint8_t index;
    std::array<std::uint8_t, 7> reserved;
};
static_assert(PlainData<SavedRtc> && sizeof(SavedRtc) == 144);

struct SavedI8042 {
    std::uint8_t control;
    std::uint8_t pending_command;
    std::uint8_t pending_keyboard;
    std::uint8_t output_port;
    std::uint8_t output_buffer;
    std::uint8_t output_full;
    std::uint8_t output_is_reply;
    std::uint8_t last_was_command;
    std::uint8_t scanning;
    std::uint8_t head;
    std::uint8_t count;
    std::array<std::uint8_t, 5> reserved;
    std::array<std::uint8_t, key_queue_size> keys;
};
static_assert(PlainData<SavedI8042> && sizeof(SavedI8042) == 48);

struct SavedSerial {
    std::uint8_t ier;
    std::uint8_t fcr;
    std::uint8_t lcr;
    std::uint8_t mcr;
    std::uint8_t lsr_errors;
    std::uint8_t msr;
    std::uint8_t scr;
    std::uint8_t thre_pending;
    std::uint16_t divisor;
    std::uint8_t fifo_count;
    std::array<std::uint8_t, 5> reserved;
    std::array<std::uint8_t, serial_fifo_size> fifo;
};
static_assert(PlainData<SavedSerial> && sizeof(SavedSerial) == 32);

}  // namespace

void put(PlainWriter& writer, const IoapicState& state) {
    writer.put(SavedIoapic{.entries = state.entries,
                           .lines = state.lines,
                           .id = state.id,
                           .index = state.index,
                           .reserved = {}});
}

IoapicState get_ioapic(PlainReader& reader) {
    const auto saved = reader.get<SavedIoapic>();
    if (saved.lines >> ioapic_pin_count != 0)
        reader.complain("the IOAPIC has pins beyond its last");
    return {.entries = saved.entries, .lines = saved.lines, .id = saved.id, .index = saved.index};
}

void put(PlainWriter& writer, const RtcState& state) {
    writer.put(SavedRtc{.offset_seconds = state.offset_seconds,
                        .memory = state.memory,
                        .index = state.index,
                        .reserved = {}});
}

RtcState get_rtc(PlainReader& reader) {
    const auto saved = reader.get<SavedRtc>();
    if (saved.index >= cmos_size)
        reader.complain("the RTC's index lies beyond its memory");
    return {.index = saved.index, .offset_seconds = saved.offset_seconds, .memory = saved.memory};
}

void put(PlainWriter& writer, const I8042State& state) {
    writer.put(SavedI8042{.control = state.control,
                          .pending_command = state.pending_command,
                          .pending_keyboard = state.pending_keyboard,
                          .output_port = state.output_port,
                          .output_buffer = state.output_buffer,
                          .output_full = state.output_full,
                          .output_is_reply = state.output_is_reply,
                          .last_was_command = state.last_was_command,
                          .scanning = state.scanning,
                          .head = state.keyboard.head,
                          .count = state.keyboard.count,
                          .reserved = {},
                          .keys = state.keyboard.bytes});
}

I8042State get_i8042(PlainReader& reader) {
    const auto saved = reader.get<SavedI8042>();
    if (saved.head >= key_queue_size || saved.count > key_queue_size)
        reader.complain("the keyboard's queue is longer than it can be");
    return {.control = saved.control,
            .pending_command = saved.pending_command,
            .pending_keyboard = saved.pending_keyboard,
            .output_port = saved.output_port,
            .output_buffer = saved.output_buffer,
            .output_full = saved.output_full != 0,
            .output_is_reply = saved.output_is_reply != 0,
            .last_was_command = saved.last_was_command != 0,
            .scanning = saved.scanning != 0,
            .keyboard = {.bytes = saved.keys, .head = saved.head, .count = saved.count}};
}

void put(PlainWriter& writer, const SerialState& state) {
    writer.put(SavedSerial{.ier = state.ier,
                           .fcr = state.fcr,
                           .lcr = state.lcr,
                           .mcr = state.mcr,
                           .lsr_errors = state.lsr_errors,
                           .msr = state.msr,
                           .scr = state.scr,
                           .thre_pending = state.thre_pending,
                           .divisor = state.divisor,
                           .fifo_count = state.fifo_count,
                           .reserved = {},
                           .fifo = state.fifo});
}

SerialState get_serial(PlainReader& reader) {
    const auto saved = reader.get<SavedSerial>();
    if (saved.fifo_count > serial_fifo_size || (saved.ier & 0xf0) != 0 || (saved.fcr & ~0xc1) != 0)
        reader.complain("the serial port's registers hold what they cannot");
    SerialState state;
    state.ier = saved.ier;
    state.fcr = saved.fcr;
    state.lcr = saved.lcr;
    state.mcr = saved.mcr;
    state.lsr_errors = saved.lsr_errors;
    state.msr = saved.msr;
    state.scr = saved.scr;
    state.divisor = saved.divisor;
    state.thre_pending = saved.thre_pending != 0;
    // What was on its way to the host has been handed over when the state was saved.
    state.transmitter_busy = false;
    state.fifo = saved.fifo;
    state.fifo_count = saved.fifo_count;
    return state;
}

}  // namespace masu::legacy
