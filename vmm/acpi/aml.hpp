// An encoder for the part of AML that our DSDT needs (ACPI 6.5, chapter 20).
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>
#include <vector>

namespace masu::acpi {

using Bytes = std::vector<std::byte>;

// Little-endian numbers and text at the end of `to`.
void append(Bytes& to, std::uint64_t value, unsigned size);
void append(Bytes& to, std::string_view text);
void append(Bytes& to, std::span<const std::byte> bytes);

[[nodiscard]] Bytes join(std::initializer_list<Bytes> parts);

}  // namespace masu::acpi

// Each function returns the encoded term, ready to be an argument of another. Terms follow ASL's
// names. No checks of meaning: iasl judges the result in the tests.
namespace masu::acpi::aml {

using Terms = std::initializer_list<Bytes>;

// PkgLength of a package whose content is `content` bytes: it counts its own bytes too. Content
// is below 2^28 - 4 bytes.
[[nodiscard]] Bytes package_length(std::size_t content);

// "PCI0", "\\_SB.PWRB", "^X": each segment is padded to four characters.
[[nodiscard]] Bytes path(std::string_view text);

[[nodiscard]] Bytes integer(std::uint64_t value);
[[nodiscard]] Bytes string(std::string_view text);
[[nodiscard]] Bytes eisa_id(std::string_view id);  // "PNP0A08"
[[nodiscard]] Bytes buffer(std::span<const std::byte> content);
[[nodiscard]] Bytes package(Terms elements);      // at most 255
[[nodiscard]] Bytes uuid(std::string_view text);  // ToUUID("33db4d5b-...")

[[nodiscard]] Bytes name(std::string_view path, const Bytes& object);
[[nodiscard]] Bytes scope(std::string_view path, const Bytes& content);
[[nodiscard]] Bytes device(std::string_view path, const Bytes& content);
[[nodiscard]] Bytes method(std::string_view path, unsigned arguments, bool serialized,
                           const Bytes& body);
[[nodiscard]] Bytes system_memory_region(std::string_view name, std::uint64_t base,
                                         std::uint64_t size);
// Field(region, DWordAcc, NoLock, WriteAsZeros) { name, 32 }
[[nodiscard]] Bytes dword_field(std::string_view region, std::string_view name);

[[nodiscard]] Bytes local(unsigned number);
[[nodiscard]] Bytes argument(unsigned number);
[[nodiscard]] Bytes create_dword_field(const Bytes& buffer, std::uint64_t byte_index,
                                       std::string_view name);
[[nodiscard]] Bytes store(const Bytes& value, const Bytes& target);
[[nodiscard]] Bytes nowhere();  // the target of an operation of which only the value counts
[[nodiscard]] Bytes bit_and(const Bytes& a, const Bytes& b, const Bytes& target);
[[nodiscard]] Bytes bit_or(const Bytes& a, const Bytes& b, const Bytes& target);
[[nodiscard]] Bytes equal(const Bytes& a, const Bytes& b);
[[nodiscard]] Bytes not_equal(const Bytes& a, const Bytes& b);
[[nodiscard]] Bytes when(const Bytes& predicate, const Bytes& body);  // If
[[nodiscard]] Bytes otherwise(const Bytes& body);                     // Else
[[nodiscard]] Bytes give(const Bytes& value);                         // Return
[[nodiscard]] Bytes notify(std::string_view object, std::uint64_t value);

// Resource descriptors (ACPI 6.5, 6.4), to be joined in a resource_template().
[[nodiscard]] Bytes resource_template(Terms descriptors);
[[nodiscard]] Bytes memory32_fixed(std::uint64_t base, std::uint64_t size);
[[nodiscard]] Bytes io_ports(std::uint16_t base, std::uint8_t count);
enum class Sharing { Exclusive, Shared };
[[nodiscard]] Bytes edge_interrupt(unsigned gsi, Sharing sharing = Sharing::Exclusive);
// What a host bridge passes on: fixed, positively decoded ranges, bounds inclusive.
[[nodiscard]] Bytes bus_numbers(std::uint16_t first, std::uint16_t last);
[[nodiscard]] Bytes memory32_window(std::uint64_t first, std::uint64_t last);
[[nodiscard]] Bytes memory64_window(std::uint64_t first, std::uint64_t last);

}  // namespace masu::acpi::aml
