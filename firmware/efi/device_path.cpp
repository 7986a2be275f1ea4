#include "firmware/efi/device_path.hpp"

#include "firmware/bytes.hpp"

namespace masu::firmware::efi {

std::optional<std::uint64_t> path_length(const DevicePath* path, std::uint64_t limit) noexcept {
    std::uint64_t length = 0;
    while (limit - length >= sizeof(DevicePath)) {
        const auto* node = at_offset(path, length);
        if (is_end(*node))
            return length;
        const std::uint64_t size = length_of(*node);
        if (size < sizeof(DevicePath) || size > limit - length)
            return std::nullopt;
        length += size;
    }
    return std::nullopt;
}

std::optional<std::uint64_t> head_length(const DevicePath* head, const DevicePath* path) noexcept {
    const auto size = path_length(head);
    const auto whole = path_length(path);
    if (!size || !whole || *whole < *size || std::memcmp(head, path, *size) != 0)
        return std::nullopt;
    // The head must end where a node of the path ends.
    for (std::uint64_t at = 0; at <= *size; at += length_of(*at_offset(path, at)))
        if (at == *size)
            return size;
    return std::nullopt;
}

bool same_path(const DevicePath* a, const DevicePath* b) noexcept {
    const auto size = path_length(a);
    const auto other = path_length(b);
    return size && other && *size == *other && std::memcmp(a, b, *size) == 0;
}

namespace {

std::span<const std::byte> bytes_of(const DevicePath* node) noexcept {
    return {reinterpret_cast<const std::byte*>(node), length_of(*node)};
}

char16_t unit_at(const DevicePath* node, std::size_t index) noexcept {
    return load_le<std::uint16_t>(bytes_of(node), sizeof(DevicePath) + index * 2);
}

std::size_t units_of(const DevicePath* node) noexcept {
    return (length_of(*node) - sizeof(DevicePath)) / 2;
}

// Counts everything, keeps what fits.
class Writer {
  public:
    explicit Writer(std::span<char16_t> to) noexcept : to_(to) {}
    void put(char16_t c) noexcept {
        if (count_ < to_.size())
            to_[count_] = c;
        ++count_;
    }
    void text(const char* text) noexcept {
        for (; *text != 0; ++text)
            put(static_cast<char16_t>(*text));
    }
    void hex(std::uint64_t value, int digits = 0) noexcept {
        text(digits == 0 ? "0x" : "");
        bool leading = digits == 0;
        for (int shift = digits == 0 ? 60 : (digits - 1) * 4; shift >= 0; shift -= 4) {
            const auto digit = value >> shift & 0xf;
            leading = leading && digit == 0 && shift != 0;
            if (!leading)
                put(static_cast<char16_t>("0123456789ABCDEF"[digit]));
        }
    }
    void decimal(std::uint64_t value) noexcept {
        if (value >= 10)
            decimal(value / 10);
        put(static_cast<char16_t>(u'0' + value % 10));
    }
    void guid(std::span<const std::byte> at) noexcept {
        hex(load_le<std::uint32_t>(at, 0), 8);
        put(u'-');
        hex(load_le<std::uint16_t>(at, 4), 4);
        put(u'-');
        hex(load_le<std::uint16_t>(at, 6), 4);
        put(u'-');
        for (std::size_t i = 8; i < 16; ++i) {
            if (i == 10)
                put(u'-');
            hex(load_le<std::uint8_t>(at, i), 2);
        }
    }
    [[nodiscard]] std::uint64_t count() const noexcept { return count_; }

  private:
    std::span<char16_t> to_;
    std::uint64_t count_ = 0;
};

void write_hard_drive(Writer& out, std::span<const std::byte> node) noexcept {
    const auto kind = load_le<std::uint8_t>(node, 41);
    out.text("HD(");
    out.decimal(load_le<std::uint32_t>(node, 4));
    out.text(load_le<std::uint8_t>(node, 40) == 1 ? ",MBR," : ",GPT,");
    if (kind == 1)
        out.hex(load_le<std::uint32_t>(node, 24));
    else
        out.guid(slice(node, 24, 16));
    out.put(u',');
    out.hex(load_le<std::uint64_t>(node, 8));
    out.put(u',');
    out.hex(load_le<std::uint64_t>(node, 16));
    out.put(u')');
}

void write_vendor(Writer& out, const char* name, std::span<const std::byte> node) noexcept {
    out.text(name);
    out.put(u'(');
    out.guid(slice(node, 4, 16));
    if (node.size() > 20)
        out.put(u',');
    for (std::size_t i = 20; i < node.size(); ++i)
        out.hex(load_le<std::uint8_t>(node, i), 2);
    out.put(u')');
}

void write_generic(Writer& out, std::span<const std::byte> node) noexcept {
    out.text("Path(");
    out.decimal(load_le<std::uint8_t>(node, 0));
    out.put(u',');
    out.decimal(load_le<std::uint8_t>(node, 1));
    out.put(u',');
    for (std::size_t i = sizeof(DevicePath); i < node.size(); ++i)
        out.hex(load_le<std::uint8_t>(node, i), 2);
    out.put(u')');
}

void write_node(Writer& out, const DevicePath* node) noexcept {
    const auto bytes = bytes_of(node);
    const unsigned kind = node->type << 8 | node->subtype;
    switch (kind) {
        case type_hardware << 8 | 1:
            out.text("Pci(");
            out.hex(load_le<std::uint8_t>(bytes, 5));
            out.put(u',');
            out.hex(load_le<std::uint8_t>(bytes, 4));
            out.put(u')');
            return;
        case type_hardware << 8 | 4:
            return write_vendor(out, "VenHw", bytes);
        case type_acpi << 8 | 1:
            if (load_le<std::uint32_t>(bytes, 4) == AcpiNode{}.hid) {
                out.text("PciRoot(");
            } else {
                out.text("Acpi(");
                out.hex(load_le<std::uint32_t>(bytes, 4));
                out.put(u',');
            }
            out.hex(load_le<std::uint32_t>(bytes, 8));
            out.put(u')');
            return;
        case type_messaging << 8 | 10:
            return write_vendor(out, "VenMsg", bytes);
        case type_messaging << 8 | 14:
            out.text("Uart(");
            out.decimal(load_le<std::uint64_t>(bytes, 8));
            out.put(u',');
            out.decimal(load_le<std::uint8_t>(bytes, 16));
            out.text(",N,1)");
            return;
        case type_media << 8 | media_hard_drive:
            return write_hard_drive(out, bytes);
        case type_media << 8 | media_vendor:
            return write_vendor(out, "VenMedia", bytes);
        case type_media << 8 | media_file_path:
            for (std::size_t i = 0; i < units_of(node) && unit_at(node, i) != 0; ++i)
                out.put(unit_at(node, i));
            return;
        default:
            return write_generic(out, bytes);
    }
}

}  // namespace

bool file_name_of(const DevicePath* path, std::span<char16_t> to) noexcept {
    const auto length = path_length(path);
    if (!length || *length == 0)
        return false;
    std::size_t used = 0;
    const auto put = [&](char16_t c) {
        if (used + 1 >= to.size())
            return false;
        to[used++] = c;
        return true;
    };
    for (std::uint64_t at = 0; at < *length; at += length_of(*at_offset(path, at))) {
        const auto* node = at_offset(path, at);
        if (node->type != type_media || node->subtype != media_file_path)
            return false;
        if (used > 0 && to[used - 1] != u'\\' && unit_at(node, 0) != u'\\' && !put(u'\\'))
            return false;
        for (std::size_t i = 0; i < units_of(node) && unit_at(node, i) != 0; ++i)
            if (!put(unit_at(node, i)))
                return false;
    }
    if (to.empty())
        return false;
    to[used] = 0;
    return used > 0;
}

std::uint64_t node_to_text(const DevicePath* node, std::span<char16_t> to) noexcept {
    Writer out(to);
    if (length_of(*node) >= sizeof(DevicePath))
        write_node(out, node);
    return out.count();
}

std::uint64_t path_to_text(const DevicePath* path, std::span<char16_t> to) noexcept {
    Writer out(to);
    const auto length = path_length(path);
    for (std::uint64_t at = 0; length && at < *length; at += length_of(*at_offset(path, at))) {
        const auto* node = at_offset(path, at);
        if (is_instance_end(*node)) {
            out.put(u',');
            continue;
        }
        if (at != 0)
            out.put(u'/');
        write_node(out, node);
    }
    return out.count();
}

}  // namespace masu::firmware::efi
