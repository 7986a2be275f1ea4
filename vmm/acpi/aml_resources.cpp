// Resource descriptors for _CRS (ACPI 6.5, 6.4).
#include "vmm/acpi/aml.hpp"

namespace masu::acpi::aml {
namespace {

enum Tag : std::uint8_t {
    IoPorts = 0x47,
    End = 0x79,
    Memory32Fixed = 0x86,
    DWordAddressSpace = 0x87,
    WordAddressSpace = 0x88,
    ExtendedInterrupt = 0x89,
    QWordAddressSpace = 0x8a,
};

enum AddressSpace : std::uint8_t { MemoryRange = 0, BusNumberRange = 2 };

constexpr std::uint64_t read_write = 1;  // for memory; bits 2:1 zero: not cacheable

// 6.4.3.5: granularity, minimum, maximum, translation, length, each of `width` bytes.
Bytes address_space(Tag tag, unsigned width, AddressSpace type, std::uint64_t type_flags,
                    std::uint64_t first, std::uint64_t last) {
    constexpr unsigned fixed_minimum_and_maximum = 0x0c;  // producer, positive decode
    Bytes out;
    append(out, tag, 1);
    append(out, 3 + 5 * width, 2);
    append(out, type, 1);
    append(out, fixed_minimum_and_maximum, 1);
    append(out, type_flags, 1);
    append(out, 0, width);
    append(out, first, width);
    append(out, last, width);
    append(out, 0, width);
    append(out, last - first + 1, width);
    return out;
}

}  // namespace

Bytes resource_template(Terms descriptors) {
    Bytes content = join(descriptors);
    append(content, End, 1);
    append(content, 0, 1);  // checksum: zero means not given
    return buffer(content);
}

Bytes memory32_fixed(std::uint64_t base, std::uint64_t size) {
    Bytes out;
    append(out, Memory32Fixed, 1);
    append(out, 9, 2);
    append(out, read_write, 1);
    append(out, base, 4);
    append(out, size, 4);
    return out;
}

Bytes io_ports(std::uint16_t base, std::uint8_t count) {
    constexpr unsigned decode_16_bits = 1;
    Bytes out;
    append(out, IoPorts, 1);
    append(out, decode_16_bits, 1);
    append(out, base, 2);
    append(out, base, 2);
    append(out, 1, 1);  // alignment
    append(out, count, 1);
    return out;
}

Bytes edge_interrupt(unsigned gsi, Sharing sharing) {
    constexpr unsigned consumer = 1 << 0;
    constexpr unsigned edge = 1 << 1;  // bit 2 zero: active high
    const unsigned shared = sharing == Sharing::Shared ? 1U << 3 : 0U;
    Bytes out;
    append(out, ExtendedInterrupt, 1);
    append(out, 2 + 4, 2);
    append(out, consumer | edge | shared, 1);
    append(out, 1, 1);
    append(out, gsi, 4);
    return out;
}

Bytes bus_numbers(std::uint16_t first, std::uint16_t last) {
    return address_space(WordAddressSpace, 2, BusNumberRange, 0, first, last);
}

Bytes memory32_window(std::uint64_t first, std::uint64_t last) {
    return address_space(DWordAddressSpace, 4, MemoryRange, read_write, first, last);
}

Bytes memory64_window(std::uint64_t first, std::uint64_t last) {
    return address_space(QWordAddressSpace, 8, MemoryRange, read_write, first, last);
}

}  // namespace masu::acpi::aml
