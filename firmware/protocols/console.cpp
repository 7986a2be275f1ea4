// Serial I/O (UEFI 12.8) on COM1, and the console's handle.
#include "firmware/efi/device_path.hpp"
#include "firmware/platform/clock.hpp"
#include "firmware/platform/cpu.hpp"
#include "firmware/platform/serial.hpp"
#include "firmware/protocols/install.hpp"
#include "firmware/runtime/runtime.hpp"
#include "firmware/services/handles.hpp"

namespace masu::firmware {

using efi::SerialIo;
using efi::Status;

namespace {

constexpr std::uint32_t control_input_empty = 0x100;
constexpr std::uint32_t control_output_empty = 0x200;
constexpr std::uint32_t control_settable = 0x7003;  // DTR, RTS, loopback and flow control

constinit efi::SimpleTextOutput output = {};
constinit efi::SimpleTextInput input = {};
constinit efi::SimpleTextInputEx input_extended = {};
constinit efi::SerialIo serial_io = {};
constinit efi::SerialIoMode serial_mode = {.control_mask = control_input_empty | control_output_empty,
                                           .timeout = 1'000'000,
                                           .baud_rate = 115200,
                                           .receive_fifo_depth = 16,
                                           .data_bits = 8,
                                           .parity = 1,
                                           .stop_bits = 1};
constinit struct {
    efi::AcpiNode root{};
    efi::AcpiNode com1{.hid = 0x0501'41d0};  // PNP0501
    efi::UartNode uart{};
    efi::EndNode end{};
} __attribute__((packed)) path = {};

Status EFIAPI serial_reset(SerialIo*) {
    return Status::Success;
}

// The line has no speed: what is possible on a real one is taken, and changes nothing.
Status EFIAPI set_attributes(SerialIo*, std::uint64_t baud, std::uint32_t, std::uint32_t timeout,
                             std::uint32_t parity, std::uint8_t data_bits,
                             std::uint32_t stop_bits) {
    if (baud > 115200 || parity > 5 || stop_bits > 3 ||
        (data_bits != 0 && (data_bits < 5 || data_bits > 8)))
        return Status::InvalidParameter;
    serial_mode.baud_rate = baud == 0 ? 115200 : baud;
    serial_mode.timeout = timeout == 0 ? 1'000'000 : timeout;
    serial_mode.parity = parity == 0 ? 1 : parity;
    serial_mode.data_bits = data_bits == 0 ? 8 : data_bits;
    serial_mode.stop_bits = stop_bits == 0 ? 1 : stop_bits;
    return Status::Success;
}

Status EFIAPI set_control(SerialIo*, std::uint32_t control) {
    return (control & ~control_settable) != 0 ? Status::Unsupported : Status::Success;
}

Status EFIAPI get_control(SerialIo*, std::uint32_t* control) {
    if (control == nullptr)
        return Status::InvalidParameter;
    *control = control_output_empty | (serial::has_input() ? 0 : control_input_empty);
    return Status::Success;
}

Status EFIAPI serial_write(SerialIo*, std::uint64_t* size, const void* data) {
    if (size == nullptr || data == nullptr)
        return Status::InvalidParameter;
    for (std::uint64_t i = 0; i < *size; ++i)
        serial::write(static_cast<const char*>(data)[i]);
    return Status::Success;
}

Status EFIAPI serial_read(SerialIo*, std::uint64_t* size, void* data) {
    if (size == nullptr || data == nullptr)
        return Status::InvalidParameter;
    const std::uint64_t wanted = *size;
    std::uint64_t deadline = clock::now() + serial_mode.timeout * clock::per_microsecond;
    for (*size = 0; *size < wanted;) {
        if (const auto byte = serial::read()) {
            static_cast<std::uint8_t*>(data)[(*size)++] = *byte;
            deadline = clock::now() + serial_mode.timeout * clock::per_microsecond;
        } else if (clock::now() > deadline) {
            return Status::Timeout;
        } else {
            cpu::pause();
        }
    }
    return Status::Success;
}

}  // namespace

void fill_serial_io(SerialIo& serial) noexcept {
    serial = {.revision = 0x10000,
              .reset = serial_reset,
              .set_attributes = set_attributes,
              .set_control = set_control,
              .get_control = get_control,
              .write = serial_write,
              .read = serial_read,
              .mode = &serial_mode};
}

bool install_console() noexcept {
    fill_text_output(output);
    fill_serial_io(serial_io);
    if (!fill_text_input(input, input_extended))
        return false;
    efi::Handle handle = nullptr;
    const bool installed =
        install_protocol(handle, efi::guid::device_path, &path) == Status::Success &&
        install_protocol(handle, efi::guid::serial_io, &serial_io) == Status::Success &&
        install_protocol(handle, efi::guid::simple_text_output, &output) == Status::Success &&
        install_protocol(handle, efi::guid::simple_text_input, &input) == Status::Success &&
        install_protocol(handle, efi::guid::simple_text_input_ex, &input_extended) ==
            Status::Success;
    auto& system = system_table();
    system.console_in_handle = handle;
    system.con_in = &input;
    system.console_out_handle = handle;
    system.con_out = &output;
    system.standard_error_handle = handle;
    system.std_err = &output;
    update_checksum(system.header);
    return installed;
}

}  // namespace masu::firmware
