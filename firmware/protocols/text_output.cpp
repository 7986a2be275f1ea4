// Simple Text Output (UEFI 12.4) as ECMA-48 sequences and UTF-8 on the serial console.
#include "firmware/platform/say.hpp"
#include "firmware/platform/serial.hpp"
#include "firmware/protocols/install.hpp"

namespace masu::firmware {

using efi::SimpleTextOutput;
using efi::Status;

namespace {

constexpr std::int32_t columns = 80;
constexpr std::int32_t rows = 25;
constinit efi::TextOutputMode mode = {.max_mode = 1, .mode = 0, .attribute = 0x07,
                                      .cursor_column = 0, .cursor_row = 0, .cursor_visible = 1};

// Boxes, blocks, arrows and geometric shapes: 12.4's list, and everything of the basic plane that
// is a letter somewhere; lone surrogates and the private area are not.
bool is_printable(char16_t c) noexcept {
    return c >= 0x20 && c != 0x7f && (c < 0xd800 || c >= 0xf900);
}

void start_sequence() noexcept {
    put(std::string_view("\x1b["));
}

void advance() noexcept {
    if (++mode.cursor_column < columns)
        return;
    mode.cursor_column = 0;
    if (mode.cursor_row < rows - 1)
        ++mode.cursor_row;
}

void put_control(char16_t c) noexcept {
    serial::write(static_cast<char>(c));
    switch (c) {
        case u'\r':
            mode.cursor_column = 0;
            return;
        case u'\n':
            if (mode.cursor_row < rows - 1)
                ++mode.cursor_row;
            return;
        case u'\b':
            if (mode.cursor_column > 0)
                --mode.cursor_column;
            return;
        default:
            return;
    }
}

bool is_control(char16_t c) noexcept {
    return c == u'\r' || c == u'\n' || c == u'\b' || c == u'\t' || c == 7;
}

Status EFIAPI output_string(SimpleTextOutput*, const char16_t* text) {
    if (text == nullptr)
        return Status::InvalidParameter;
    auto status = Status::Success;
    for (; *text != 0; ++text) {
        if (is_printable(*text)) {
            put(*text);
            advance();
        } else if (is_control(*text)) {
            put_control(*text);
        } else {
            serial::write('?');
            advance();
            status = Status::WarnUnknownGlyph;
        }
    }
    return status;
}

Status EFIAPI test_string(SimpleTextOutput*, const char16_t* text) {
    if (text == nullptr)
        return Status::InvalidParameter;
    for (; *text != 0; ++text)
        if (!is_printable(*text) && !is_control(*text))
            return Status::Unsupported;
    return Status::Success;
}

Status EFIAPI query_mode(SimpleTextOutput*, std::uint64_t number, std::uint64_t* width,
                         std::uint64_t* height) {
    if (number != 0 || width == nullptr || height == nullptr)
        return Status::Unsupported;
    *width = columns;
    *height = rows;
    return Status::Success;
}

Status EFIAPI set_attribute(SimpleTextOutput*, std::uint64_t attribute) {
    // EFI counts blue, green, red; ECMA-48 red, green, blue.
    constexpr std::uint8_t colour[] = {0, 4, 2, 6, 1, 5, 3, 7};
    if (attribute > 0x7f)
        return Status::Unsupported;
    if (static_cast<std::int32_t>(attribute) == mode.attribute)
        return Status::Success;
    mode.attribute = static_cast<std::int32_t>(attribute);
    start_sequence();
    put(std::string_view((attribute & 8) != 0 ? "0;1;3" : "0;3"));
    put(std::uint64_t{colour[attribute & 7]});
    put(std::string_view(";4"));
    put(std::uint64_t{colour[attribute >> 4]});
    serial::write('m');
    return Status::Success;
}

Status EFIAPI clear_screen(SimpleTextOutput*) {
    put(std::string_view("\x1b[2J\x1b[H"));
    mode.cursor_column = 0;
    mode.cursor_row = 0;
    return Status::Success;
}

Status EFIAPI set_cursor_position(SimpleTextOutput*, std::uint64_t column, std::uint64_t row) {
    if (column >= columns || row >= rows)
        return Status::Unsupported;
    mode.cursor_column = static_cast<std::int32_t>(column);
    mode.cursor_row = static_cast<std::int32_t>(row);
    start_sequence();
    put(row + 1);
    serial::write(';');
    put(column + 1);
    serial::write('H');
    return Status::Success;
}

Status EFIAPI enable_cursor(SimpleTextOutput*, efi::Bool visible) {
    if ((visible != 0) != (mode.cursor_visible != 0))
        put(std::string_view(visible != 0 ? "\x1b[?25h" : "\x1b[?25l"));
    mode.cursor_visible = visible != 0 ? 1 : 0;
    return Status::Success;
}

// No cleared screen here, though 12.4 wants one: what stands on a serial console is a log.
Status EFIAPI reset(SimpleTextOutput* self, efi::Bool) {
    (void)set_attribute(self, 0x07);
    (void)enable_cursor(self, 1);
    return Status::Success;
}

Status EFIAPI set_mode(SimpleTextOutput* self, std::uint64_t number) {
    return number == 0 ? clear_screen(self) : Status::Unsupported;
}

}  // namespace

void fill_text_output(SimpleTextOutput& output) noexcept {
    output = {.reset = reset,
              .output_string = output_string,
              .test_string = test_string,
              .query_mode = query_mode,
              .set_mode = set_mode,
              .set_attribute = set_attribute,
              .clear_screen = clear_screen,
              .set_cursor_position = set_cursor_position,
              .enable_cursor = enable_cursor,
              .mode = &mode};
}

}  // namespace masu::firmware
