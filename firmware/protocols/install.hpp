// The firmware's protocols, each put on its handle by one call at the start.
#pragma once

#include <optional>

#include "firmware/efi/protocols.hpp"

namespace masu::firmware {

// Simple Text Output, Input, Input Ex and Serial I/O on one handle, and into the system table.
[[nodiscard]] bool install_console() noexcept;
// Unicode Collation 2 and Device Path To Text.
[[nodiscard]] bool install_text_protocols() noexcept;
// Only where there is an entropy device.
void install_rng() noexcept;

void fill_text_output(efi::SimpleTextOutput& output) noexcept;
[[nodiscard]] bool fill_text_input(efi::SimpleTextInput& input,
                                   efi::SimpleTextInputEx& extended) noexcept;
void fill_serial_io(efi::SerialIo& serial) noexcept;

// The next key that was typed on the console.
[[nodiscard]] std::optional<efi::InputKey> read_key() noexcept;

}  // namespace masu::firmware
