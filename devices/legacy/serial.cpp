#include "devices/legacy/serial.hpp"

#include <algorithm>

#include <sys/epoll.h>

namespace masu::legacy {
namespace {

// PC16550D, 8.0: registers by offset; DLAB (LCR bit 7) swaps the first two for the divisor.
enum Register : std::uint64_t {
    Data = 0,               // RBR / THR, DLL
    InterruptEnable = 1,    // IER, DLM
    InterruptIdentity = 2,  // IIR / FCR
    LineControl = 3,        // LCR
    ModemControl = 4,       // MCR
    LineStatus = 5,         // LSR
    ModemStatus = 6,        // MSR
    Scratch = 7,            // SCR
};

constexpr std::uint8_t ier_received = 1 << 0;
constexpr std::uint8_t ier_thre = 1 << 1;
constexpr std::uint8_t ier_line_status = 1 << 2;
constexpr std::uint8_t ier_modem_status = 1 << 3;
constexpr std::uint8_t ier_mask = 0x0f;

constexpr std::uint8_t iir_none = 0x01;
constexpr std::uint8_t iir_modem_status = 0x00;
constexpr std::uint8_t iir_thre = 0x02;
constexpr std::uint8_t iir_received = 0x04;
constexpr std::uint8_t iir_line_status = 0x06;
constexpr std::uint8_t iir_timeout = 0x0c;
constexpr std::uint8_t iir_id_mask = 0x0f;
constexpr std::uint8_t iir_fifos_on = 0xc0;

constexpr std::uint8_t fcr_enable = 1 << 0;
constexpr std::uint8_t fcr_reset_receiver = 1 << 1;
constexpr std::uint8_t fcr_trigger_shift = 6;
constexpr std::uint8_t fcr_kept = 0xc1;

constexpr std::uint8_t lcr_dlab = 1 << 7;

constexpr std::uint8_t mcr_mask = 0x1f;
constexpr std::uint8_t mcr_loopback = 1 << 4;

constexpr std::uint8_t lsr_data_ready = 1 << 0;
constexpr std::uint8_t lsr_overrun = 1 << 1;
constexpr std::uint8_t lsr_thre = 1 << 5;
constexpr std::uint8_t lsr_transmitter_empty = 1 << 6;

constexpr std::uint8_t msr_delta_mask = 0x0f;
constexpr std::uint8_t msr_delta_ring = 1 << 2;
constexpr std::uint8_t msr_connected = 0xb0;  // DCD, DSR, CTS
constexpr std::uint8_t msr_ring_delta_source = 1 << 2;

// In loopback the modem lines come back: RTS as CTS, DTR as DSR, OUT1 as RI, OUT2 as DCD.
std::uint8_t looped_modem_lines(std::uint8_t mcr) {
    const bool dtr = (mcr & 1) != 0;
    const bool rts = (mcr & 2) != 0;
    return static_cast<std::uint8_t>((mcr & 0x0c) << 4 | (dtr ? 1 << 5 : 0) | (rts ? 1 << 4 : 0));
}

}  // namespace

Result<std::unique_ptr<Serial>> Serial::create(EventLoop& loop, InterruptLine& line,
                                               Metrics& metrics, Sink sink,
                                               std::function<void()> input_room) {
    auto wake = TRY(EventFd::create());
    std::unique_ptr<Serial> serial(
        new Serial(std::move(wake), line, metrics, std::move(sink), std::move(input_room)));
    serial->watch_ =
        TRY(loop.watch(serial->wake_.fd(), EPOLLIN, [self = serial.get()](std::uint32_t) {
            self->wake_.take();
            self->flush();
        }));
    return serial;
}

Serial::Serial(EventFd wake, InterruptLine& line, Metrics& metrics, Sink sink,
               std::function<void()> input_room)
    : wake_(std::move(wake)),
      line_(line),
      sink_(std::move(sink)),
      input_room_(std::move(input_room)),
      out_bytes_(metrics.counter("uart", "out_bytes")),
      out_dropped_(metrics.counter("uart", "out_dropped")),
      in_bytes_(metrics.counter("uart", "in_bytes")),
      in_dropped_(metrics.counter("uart", "in_dropped")) {
    // Address space only; pages come with use.
    output_.reserve(serial_output_limit);
    draining_.reserve(serial_output_limit);
}

void Serial::flush() {
    bool room = false;
    {
        const std::lock_guard lock(mutex_);
        draining_.swap(output_);
        if (state_.transmitter_busy) {
            state_.transmitter_busy = false;
            state_.thre_pending = true;
            update_line();
        }
        if (input_refused_ && input_.size() <= serial_input_limit / 2) {
            input_refused_ = false;
            room = true;
        }
    }
    if (!draining_.empty())
        sink_(draining_);
    draining_.clear();
    if (room && input_room_)
        input_room_();
}

std::size_t Serial::input(std::span<const std::byte> bytes) {
    const std::lock_guard lock(mutex_);
    std::size_t taken = 0;
    while (taken < bytes.size() && input_.size() < serial_input_limit) {
        const auto count = std::min(bytes.size() - taken, serial_input_limit - input_.size());
        for (const auto byte : bytes.subspan(taken, count))
            input_.push_back(std::to_integer<std::uint8_t>(byte));
        taken += count;
        refill_fifo();
    }
    in_bytes_.add(taken);
    if (taken < bytes.size()) {
        in_dropped_.add(bytes.size() - taken);
        input_refused_ = true;
    }
    update_line();
    return taken;
}

std::uint8_t Serial::read_register(std::uint64_t offset) {
    const std::lock_guard lock(mutex_);
    const bool dlab = (state_.lcr & lcr_dlab) != 0;
    std::uint8_t value = 0xff;
    switch (offset) {
        case Data:
            value = dlab ? static_cast<std::uint8_t>(state_.divisor) : receive();
            break;
        case InterruptEnable:
            value = dlab ? static_cast<std::uint8_t>(state_.divisor >> 8) : state_.ier;
            break;
        case InterruptIdentity:
            value = interrupt_identification();
            if ((value & iir_id_mask) == iir_thre)
                state_.thre_pending = false;
            break;
        case LineControl:
            value = state_.lcr;
            break;
        case ModemControl:
            value = state_.mcr;
            break;
        case LineStatus:
            value = line_status();
            state_.lsr_errors = 0;
            break;
        case ModemStatus:
            value = state_.msr;
            state_.msr &= static_cast<std::uint8_t>(~msr_delta_mask);
            break;
        case Scratch:
            value = state_.scr;
            break;
        default:
            break;
    }
    update_line();
    return value;
}

void Serial::write_register(std::uint64_t offset, std::uint8_t value) {
    const std::lock_guard lock(mutex_);
    const bool dlab = (state_.lcr & lcr_dlab) != 0;
    switch (offset) {
        case Data:
            if (dlab)
                state_.divisor = static_cast<std::uint16_t>((state_.divisor & 0xff00) | value);
            else
                transmit(value);
            break;
        case InterruptEnable:
            if (dlab)
                state_.divisor = static_cast<std::uint16_t>((state_.divisor & 0xff) | value << 8);
            else
                write_ier(value);
            break;
        case InterruptIdentity:
            write_fcr(value);
            break;
        case LineControl:
            state_.lcr = value;
            break;
        case ModemControl:
            write_mcr(value);
            break;
        case Scratch:
            state_.scr = value;
            break;
        default:  // LSR and MSR are read-only here
            break;
    }
    update_line();
}

std::uint8_t Serial::interrupt_identification() const {
    const bool fifos = (state_.fcr & fcr_enable) != 0;
    const std::uint8_t high = fifos ? iir_fifos_on : std::uint8_t{0};
    constexpr std::array<std::uint8_t, 4> triggers{1, 4, 8, 14};
    const auto trigger = fifos ? triggers[state_.fcr >> fcr_trigger_shift] : std::uint8_t{1};

    std::uint8_t cause = iir_none;
    if ((state_.ier & ier_line_status) != 0 && state_.lsr_errors != 0)
        cause = iir_line_status;
    else if ((state_.ier & ier_received) != 0 && state_.fifo_count >= trigger)
        cause = iir_received;
    else if ((state_.ier & ier_received) != 0 && state_.fifo_count > 0)
        // Below the trigger level the hardware waits four characters' time; time stands still here.
        cause = iir_timeout;
    else if ((state_.ier & ier_thre) != 0 && state_.thre_pending)
        cause = iir_thre;
    else if ((state_.ier & ier_modem_status) != 0 && (state_.msr & msr_delta_mask) != 0)
        cause = iir_modem_status;
    return high | cause;
}

std::uint8_t Serial::line_status() const {
    std::uint8_t value = state_.lsr_errors;
    if (state_.fifo_count > 0)
        value |= lsr_data_ready;
    if (!state_.transmitter_busy)
        value |= lsr_thre | lsr_transmitter_empty;
    return value;
}

std::size_t Serial::fifo_capacity() const {
    return (state_.fcr & fcr_enable) != 0 ? serial_fifo_size : 1;
}

std::uint8_t Serial::receive() {
    if (state_.fifo_count == 0)
        return 0;
    const auto value = state_.fifo[0];
    std::copy_n(state_.fifo.begin() + 1, state_.fifo_count - 1, state_.fifo.begin());
    --state_.fifo_count;
    refill_fifo();
    return value;
}

void Serial::transmit(std::uint8_t value) {
    if ((state_.mcr & mcr_loopback) != 0) {
        push_fifo(value);
        state_.thre_pending = true;
        return;
    }
    if (output_.size() >= serial_output_limit) {
        out_dropped_.add();
        return;
    }
    if (output_.empty())
        wake_.signal();
    output_.push_back(std::byte{value});
    out_bytes_.add();
    // A driver that saw THRE may send a FIFO's worth without looking again.
    state_.transmitter_busy = output_.size() > serial_output_limit - serial_fifo_size;
    state_.thre_pending = !state_.transmitter_busy;
}

void Serial::write_ier(std::uint8_t value) {
    const auto old = state_.ier;
    state_.ier = value & ier_mask;
    // Enabling the THRE interrupt raises it when THR is empty; drivers test for it.
    if ((~old & state_.ier & ier_thre) != 0 && !state_.transmitter_busy)
        state_.thre_pending = true;
}

void Serial::write_fcr(std::uint8_t value) {
    // Turning the FIFOs on or off empties them.
    if ((value & fcr_reset_receiver) != 0 || ((state_.fcr ^ value) & fcr_enable) != 0)
        state_.fifo_count = 0;
    // Trigger bits count only together with the enable bit.
    state_.fcr = (value & fcr_enable) != 0 ? value & fcr_kept : 0;
    refill_fifo();
}

void Serial::write_mcr(std::uint8_t value) {
    state_.mcr = value & mcr_mask;
    const bool loopback = (state_.mcr & mcr_loopback) != 0;
    const auto lines = loopback ? looped_modem_lines(state_.mcr) : msr_connected;
    const auto old = state_.msr;
    auto deltas = static_cast<std::uint8_t>((old ^ lines) >> 4);
    // The ring indicator reports only its trailing edge.
    const bool ring_ended = (old & ~lines & (msr_ring_delta_source << 4)) != 0;
    if (!ring_ended)
        deltas &= static_cast<std::uint8_t>(~msr_delta_ring);
    state_.msr = static_cast<std::uint8_t>(lines | (old & msr_delta_mask) | deltas);
    refill_fifo();
}

void Serial::push_fifo(std::uint8_t value) {
    if (state_.fifo_count >= fifo_capacity()) {
        state_.lsr_errors |= lsr_overrun;
        return;
    }
    state_.fifo[state_.fifo_count++] = value;
}

void Serial::refill_fifo() {
    if ((state_.mcr & mcr_loopback) != 0)
        return;
    while (!input_.empty() && state_.fifo_count < fifo_capacity()) {
        state_.fifo[state_.fifo_count++] = input_.front();
        input_.pop_front();
    }
    if (input_refused_ && input_.size() <= serial_input_limit / 2)
        wake_.signal();
}

void Serial::update_line() {
    const bool asserted = (interrupt_identification() & iir_id_mask) != iir_none;
    if (asserted == line_asserted_)
        return;
    line_asserted_ = asserted;
    line_.set(asserted);
}

SerialState Serial::save() const {
    const std::lock_guard lock(mutex_);
    return state_;
}

void Serial::restore(const SerialState& state) {
    const std::lock_guard lock(mutex_);
    state_ = state;
    state_.fifo_count = std::min<std::uint8_t>(state_.fifo_count, serial_fifo_size);
    refill_fifo();
    update_line();
}

}  // namespace masu::legacy
