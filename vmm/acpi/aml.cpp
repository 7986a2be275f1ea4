#include "vmm/acpi/aml.hpp"

#include <algorithm>
#include <array>

namespace masu::acpi {

void append(Bytes& to, std::uint64_t value, unsigned size) {
    for (unsigned i = 0; i < size; ++i)
        to.push_back(static_cast<std::byte>(value >> (8 * i)));
}

void append(Bytes& to, std::string_view text) {
    append(to, std::as_bytes(std::span(text)));
}

void append(Bytes& to, std::span<const std::byte> bytes) {
    to.insert(to.end(), bytes.begin(), bytes.end());
}

Bytes join(std::initializer_list<Bytes> parts) {
    Bytes all;
    for (const auto& part : parts)
        append(all, part);
    return all;
}

namespace aml {
namespace {

enum Opcode : std::uint8_t {
    Zero = 0x00,
    One = 0x01,
    Name = 0x08,
    BytePrefix = 0x0a,
    WordPrefix = 0x0b,
    DWordPrefix = 0x0c,
    StringPrefix = 0x0d,
    QWordPrefix = 0x0e,
    Scope = 0x10,
    Buffer = 0x11,
    Package = 0x12,
    Method = 0x14,
    DualName = 0x2e,
    MultiName = 0x2f,
    Extended = 0x5b,
    Local0 = 0x60,
    Arg0 = 0x68,
    Store = 0x70,
    And = 0x7b,
    Or = 0x7d,
    Notify = 0x86,
    CreateDWordField = 0x8a,
    LNot = 0x92,
    LEqual = 0x93,
    If = 0xa0,
    Else = 0xa1,
    Return = 0xa4,
};

// After Extended.
enum ExtendedOpcode : std::uint8_t { OperationRegion = 0x80, Field = 0x81, Device = 0x82 };

constexpr std::size_t segment_size = 4;

Bytes byte(unsigned value) {
    return {static_cast<std::byte>(value)};
}

// The encoding shared by PkgLength and field widths: `value` in 1 to 4 bytes.
Bytes packed_length(std::uint64_t value, unsigned bytes) {
    if (bytes == 1)
        return byte(static_cast<unsigned>(value));
    Bytes out = byte(static_cast<unsigned>((bytes - 1) << 6 | (value & 0xf)));
    append(out, value >> 4, bytes - 1);
    return out;
}

// The largest value that fits: 6 bits in one byte, otherwise 4 bits and 8 more each byte.
std::uint64_t packed_limit(unsigned bytes) {
    return bytes == 1 ? 0x3f : (std::uint64_t{1} << (4 + 8 * (bytes - 1))) - 1;
}

// opcode PkgLength content
Bytes packaged(const Bytes& opcode, const Bytes& content) {
    return join({opcode, package_length(content.size()), content});
}

std::uint8_t hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return static_cast<std::uint8_t>(c - '0');
    return static_cast<std::uint8_t>((c | 0x20) - 'a' + 10);
}

}  // namespace

Bytes package_length(std::size_t content) {
    unsigned bytes = 1;
    while (bytes < 4 && content + bytes > packed_limit(bytes))
        ++bytes;
    return packed_length(content + bytes, bytes);
}

Bytes path(std::string_view text) {
    Bytes out;
    while (!text.empty() && (text.front() == '\\' || text.front() == '^')) {
        append(out, text.substr(0, 1));
        text.remove_prefix(1);
    }
    if (text.empty())
        return join({out, byte(Zero)});
    const auto segments = static_cast<unsigned>(std::count(text.begin(), text.end(), '.')) + 1;
    if (segments == 2)
        append(out, byte(DualName));
    else if (segments > 2)
        append(out, join({byte(MultiName), byte(segments)}));
    for (unsigned i = 0; i < segments; ++i) {
        const auto segment = text.substr(0, text.find('.'));
        append(out, segment);
        append(out, std::string_view("____").substr(std::min(segment.size(), segment_size)));
        text.remove_prefix(std::min(text.size(), segment.size() + 1));
    }
    return out;
}

Bytes integer(std::uint64_t value) {
    if (value <= 1)
        return byte(value == 0 ? Zero : One);
    const auto [prefix, size] = value <= 0xff          ? std::pair(BytePrefix, 1U)
                                : value <= 0xffff      ? std::pair(WordPrefix, 2U)
                                : value <= 0xffff'ffff ? std::pair(DWordPrefix, 4U)
                                                       : std::pair(QWordPrefix, 8U);
    Bytes out = byte(prefix);
    append(out, value, size);
    return out;
}

Bytes string(std::string_view text) {
    Bytes out = byte(StringPrefix);
    append(out, text);
    append(out, 0, 1);
    return out;
}

// ACPI 6.5, 19.6.35: three 5-bit letters and four hex digits, as a big-endian number.
Bytes eisa_id(std::string_view id) {
    std::uint32_t value = 0;
    for (const char letter : id.substr(0, 3))
        value = value << 5 | static_cast<std::uint32_t>(letter - 'A' + 1);
    for (const char digit : id.substr(3, 4))
        value = value << 4 | hex_digit(digit);
    Bytes out = byte(DWordPrefix);
    append(out, __builtin_bswap32(value), 4);
    return out;
}

Bytes buffer(std::span<const std::byte> content) {
    Bytes inside = integer(content.size());
    append(inside, content);
    return packaged(byte(Buffer), inside);
}

Bytes package(Terms elements) {
    return packaged(byte(Package),
                    join({byte(static_cast<unsigned>(elements.size())), join(elements)}));
}

// ACPI 6.5, 19.6.142: the first three groups are stored little-endian.
Bytes uuid(std::string_view text) {
    Bytes written;
    for (std::size_t i = 0; i + 1 < text.size(); i += text[i] == '-' ? 1 : 2)
        if (text[i] != '-')
            append(written, std::uint64_t{hex_digit(text[i])} << 4 | hex_digit(text[i + 1]), 1);
    constexpr std::array<std::size_t, 16> order{3, 2, 1,  0,  5,  4,  7,  6,
                                                8, 9, 10, 11, 12, 13, 14, 15};
    Bytes stored;
    for (const auto from : order)
        stored.push_back(written.at(from));
    return buffer(stored);
}

Bytes name(std::string_view path_text, const Bytes& object) {
    return join({byte(Name), path(path_text), object});
}

Bytes scope(std::string_view path_text, const Bytes& content) {
    return packaged(byte(Scope), join({path(path_text), content}));
}

Bytes device(std::string_view path_text, const Bytes& content) {
    return packaged(join({byte(Extended), byte(Device)}), join({path(path_text), content}));
}

Bytes method(std::string_view path_text, unsigned arguments, bool serialized, const Bytes& body) {
    const unsigned flags = arguments | (serialized ? 1U << 3 : 0U);
    return packaged(byte(Method), join({path(path_text), byte(flags), body}));
}

Bytes system_memory_region(std::string_view region, std::uint64_t base, std::uint64_t size) {
    constexpr unsigned system_memory = 0;
    return join({byte(Extended), byte(OperationRegion), path(region), byte(system_memory),
                 integer(base), integer(size)});
}

Bytes dword_field(std::string_view region, std::string_view field) {
    constexpr unsigned dword_access = 3;
    constexpr unsigned write_as_zeros = 2 << 5;
    return packaged(join({byte(Extended), byte(Field)}),
                    join({path(region), byte(dword_access | write_as_zeros), path(field),
                          packed_length(32, 1)}));
}

Bytes local(unsigned number) {
    return byte(Local0 + number);
}

Bytes argument(unsigned number) {
    return byte(Arg0 + number);
}

Bytes create_dword_field(const Bytes& source, std::uint64_t byte_index, std::string_view field) {
    return join({byte(CreateDWordField), source, integer(byte_index), path(field)});
}

Bytes store(const Bytes& value, const Bytes& target) {
    return join({byte(Store), value, target});
}

Bytes nowhere() {
    return byte(Zero);
}

Bytes bit_and(const Bytes& a, const Bytes& b, const Bytes& target) {
    return join({byte(And), a, b, target});
}

Bytes bit_or(const Bytes& a, const Bytes& b, const Bytes& target) {
    return join({byte(Or), a, b, target});
}

Bytes equal(const Bytes& a, const Bytes& b) {
    return join({byte(LEqual), a, b});
}

Bytes not_equal(const Bytes& a, const Bytes& b) {
    return join({byte(LNot), equal(a, b)});
}

Bytes when(const Bytes& predicate, const Bytes& body) {
    return packaged(byte(If), join({predicate, body}));
}

Bytes otherwise(const Bytes& body) {
    return packaged(byte(Else), body);
}

Bytes give(const Bytes& value) {
    return join({byte(Return), value});
}

Bytes notify(std::string_view object, std::uint64_t value) {
    return join({byte(Notify), path(object), integer(value)});
}

}  // namespace aml
}  // namespace masu::acpi
