#include "vmm/acpi/smbios.hpp"

#include <algorithm>
#include <optional>
#include <span>

#include "base/bytes.hpp"
#include "vmm/acpi/aml.hpp"
#include "vmm/layout.hpp"

namespace masu::acpi {
namespace {

constexpr std::size_t entry_point_size = 24;
constexpr std::size_t structures_offset = align_up(entry_point_size, 16);
constexpr unsigned version_major = 3;
constexpr unsigned version_minor = 2;
constexpr std::size_t max_string = 255;

// DSP0134 structure types.
enum Type : std::uint8_t {
    Bios = 0,
    System = 1,
    Baseboard = 2,
    Chassis = 3,
    Processor = 4,
    OemStrings = 11,
    MemoryArray = 16,
    MemoryDevice = 17,
    MemoryArrayAddress = 19,
    BootInformation = 32,
    EndOfTable = 127,
};

constexpr std::uint16_t handle_of(Type type, unsigned number = 0) {
    return static_cast<std::uint16_t>(type << 8 | number);
}

// One structure: the formatted part, then its strings, to which the formatted part refers by
// number.
class Structure {
  public:
    explicit Structure(Type type, unsigned number = 0) {
        append(bytes_, type, 1);
        append(bytes_, 0, 1);  // length
        append(bytes_, handle_of(type, number), 2);
    }
    Structure& number(std::uint64_t value, unsigned size) {
        append(bytes_, value, size);
        return *this;
    }
    Structure& string(const std::string& text) {
        if (text.empty())
            return number(0, 1);
        strings_.push_back(text);
        return number(strings_.size(), 1);
    }
    // A string that the formatted part does not refer to (type 11).
    Structure& trailing_string(const std::string& text) {
        strings_.push_back(text);
        return *this;
    }
    Structure& raw(std::span<const std::byte> bytes) {
        append(bytes_, bytes);
        return *this;
    }
    [[nodiscard]] Bytes finish() const {
        Bytes out = bytes_;
        out[1] = static_cast<std::byte>(out.size());
        for (const auto& text : strings_) {
            append(out, std::string_view(text));
            append(out, 0, 1);
        }
        append(out, 0, strings_.empty() ? 2 : 1);
        return out;
    }

  private:
    Bytes bytes_;
    std::vector<std::string> strings_;
};

// 7.2.1: the first three fields are little-endian.
Bytes stored_uuid(const Uuid& uuid) {
    constexpr std::array<std::size_t, 16> order{3, 2, 1,  0,  5,  4,  7,  6,
                                                8, 9, 10, 11, 12, 13, 14, 15};
    Bytes out;
    for (const auto from : order)
        append(out, uuid[from], 1);
    return out;
}

Bytes bios(const SmbiosIdentity& identity) {
    constexpr std::uint64_t characteristics_not_supported = 1 << 3;
    constexpr unsigned is_virtual_machine = 1 << 4;
    return Structure(Bios)
        .string(identity.bios_vendor)
        .string(identity.bios_version)
        .number(0, 2)  // address segment: no ROM
        .string(identity.bios_date)
        .number(0, 1)  // ROM size: 64 KiB
        .number(characteristics_not_supported, 8)
        .number(0, 1)
        .number(is_virtual_machine, 1)
        .number(0xffff, 2)  // system BIOS release: see the version string
        .number(0xffff, 2)  // embedded controller: none
        .number(0, 2)
        .finish();
}

Bytes system(const SmbiosIdentity& identity) {
    constexpr unsigned woken_by_power_switch = 6;
    return Structure(System)
        .string(identity.manufacturer)
        .string(identity.product)
        .string(identity.version)
        .string(identity.serial)
        .raw(stored_uuid(identity.uuid))
        .number(woken_by_power_switch, 1)
        .string(identity.sku)
        .string(identity.family)
        .finish();
}

Bytes baseboard(const SmbiosIdentity& identity) {
    constexpr unsigned hosting_board = 1;
    constexpr unsigned motherboard = 0x0a;
    return Structure(Baseboard)
        .string(identity.manufacturer)
        .string(identity.product)
        .string(identity.version)
        .string("")  // serial
        .string(identity.board_asset_tag)
        .number(hosting_board, 1)
        .string("")  // location in chassis
        .number(handle_of(Chassis), 2)
        .number(motherboard, 1)
        .number(0, 1)
        .finish();
}

Bytes chassis(const SmbiosIdentity& identity) {
    constexpr unsigned other = 1;
    constexpr unsigned safe = 3;
    constexpr unsigned no_security = 3;
    return Structure(Chassis)
        .string(identity.manufacturer)
        .number(other, 1)
        .string(identity.version)
        .string("")  // serial
        .string(identity.chassis_asset_tag)
        .number(safe, 1)  // boot-up
        .number(safe, 1)  // power supply
        .number(safe, 1)  // thermal
        .number(no_security, 1)
        .number(0, 4 + 1 + 1)  // OEM-defined, height, power cords
        .number(0, 1 + 1)      // contained elements
        .string("")            // SKU
        .finish();
}

// One socket with a core a vCPU.
Bytes processor(const SmbiosDescription& description) {
    constexpr unsigned central = 3;
    constexpr unsigned other = 1;
    constexpr unsigned populated_and_enabled = 0x41;
    constexpr unsigned no_cache = 0xffff;
    constexpr unsigned is_64_bit_and_multi_core = 1 << 2 | 1 << 3;
    constexpr unsigned unknown = 2;
    const auto cores = description.vcpus;
    const auto small_count = std::min(cores, 255U);
    return Structure(Processor)
        .string("CPU 0")
        .number(central, 1)
        .number(other, 1)  // family
        .string(description.identity.manufacturer)
        .number(0, 8)  // processor id: read CPUID
        .string("virtual")
        .number(0, 1 + 2 + 2 + 2)  // voltage, clocks
        .number(populated_and_enabled, 1)
        .number(other, 1)  // socket
        .number(no_cache, 2)
        .number(no_cache, 2)
        .number(no_cache, 2)
        .string("")  // serial
        .string("")  // asset tag
        .string("")  // part number
        .number(small_count, 1)
        .number(small_count, 1)
        .number(small_count, 1)
        .number(is_64_bit_and_multi_core, 2)
        .number(unknown, 2)
        .number(cores, 2)
        .number(cores, 2)
        .number(cores, 2)
        .finish();
}

Bytes memory_array(std::uint64_t bytes) {
    constexpr unsigned on_motherboard = 3;
    constexpr unsigned system_memory = 3;
    constexpr unsigned multi_bit_ecc = 6;
    constexpr std::uint64_t see_extended = 0x8000'0000;
    constexpr unsigned no_error_information = 0xfffe;
    const auto kib = bytes / KiB;
    return Structure(MemoryArray)
        .number(on_motherboard, 1)
        .number(system_memory, 1)
        .number(multi_bit_ecc, 1)
        .number(std::min(kib, see_extended), 4)
        .number(no_error_information, 2)
        .number(1, 2)  // devices
        .number(kib >= see_extended ? bytes : 0, 8)
        .finish();
}

Bytes memory_device(const SmbiosDescription& description) {
    constexpr unsigned no_error_information = 0xfffe;
    constexpr unsigned unknown_width = 0xffff;
    constexpr std::uint64_t see_extended = 0x7fff;
    constexpr unsigned dimm = 9;
    constexpr unsigned ram = 7;
    constexpr unsigned detail_other = 1 << 1;
    const auto mib = description.memory_bytes / MiB;
    return Structure(MemoryDevice)
        .number(handle_of(MemoryArray), 2)
        .number(no_error_information, 2)
        .number(unknown_width, 2)
        .number(unknown_width, 2)
        .number(std::min(mib, see_extended), 2)
        .number(dimm, 1)
        .number(0, 1)  // no set
        .string("DIMM 0")
        .string("")  // bank
        .number(ram, 1)
        .number(detail_other, 2)
        .number(0, 2)  // speed
        .string(description.identity.manufacturer)
        .string("")    // serial
        .string("")    // asset tag
        .string("")    // part number
        .number(0, 1)  // rank
        .number(mib >= see_extended ? mib : 0, 4)
        .number(0, 2 + 2 + 2 + 2)  // configured speed, voltages
        .finish();
}

// [start, start + size) of guest-physical memory; size > 0.
Bytes memory_array_address(unsigned number, std::uint64_t start, std::uint64_t size) {
    const auto last = start + size - 1;
    const bool extended = last / KiB >= 0xffff'ffff;
    return Structure(MemoryArrayAddress, number)
        .number(extended ? 0xffff'ffff : start / KiB, 4)
        .number(extended ? 0xffff'ffff : last / KiB, 4)
        .number(handle_of(MemoryArray), 2)
        .number(1, 1)  // partition width
        .number(extended ? start : 0, 8)
        .number(extended ? last : 0, 8)
        .finish();
}

Bytes oem_strings(const std::vector<std::string>& strings) {
    Structure structure(OemStrings);
    structure.number(strings.size(), 1);
    for (const auto& text : strings)
        structure.trailing_string(text);
    return structure.finish();
}

Bytes boot_information() {
    return Structure(BootInformation).number(0, 6).number(0, 1).finish();
}

Bytes structures(const SmbiosDescription& description) {
    const auto& identity = description.identity;
    Bytes all = join({bios(identity), system(identity), baseboard(identity), chassis(identity),
                      processor(description)});
    if (!identity.oem_strings.empty())
        append(all, oem_strings(identity.oem_strings));
    append(all, join({memory_array(description.memory_bytes), memory_device(description)}));
    const auto low = std::min(description.memory_bytes, layout::low_ram_end);
    const auto high = description.memory_bytes - low;
    if (low > 0)
        append(all, memory_array_address(0, 0, low));
    if (high > 0)
        append(all, memory_array_address(1, layout::high_ram_start, high));
    append(all, join({boot_information(), Structure(EndOfTable).finish()}));
    return all;
}

// DSP0134, 5.2.2
Bytes entry_point(std::size_t structures_size) {
    constexpr std::size_t checksum_offset = 5;
    Bytes out;
    append(out, std::string_view("_SM3_"));
    append(out, 0, 1);
    append(out, entry_point_size, 1);
    append(out, version_major, 1);
    append(out, version_minor, 1);
    append(out, 0, 1);  // docrev
    append(out, 1, 1);  // entry point revision
    append(out, 0, 1);
    append(out, structures_size, 4);
    append(out, layout::smbios + structures_offset, 8);
    unsigned sum = 0;
    for (const auto byte : out)
        sum += std::to_integer<unsigned>(byte);
    out[checksum_offset] = static_cast<std::byte>(0U - sum);
    return out;
}

Result<> check_string(std::string_view what, const std::string& text) {
    if (text.size() > max_string)
        return fail("SMBIOS {}: {} bytes long, at most {} are possible", what, text.size(),
                    max_string);
    if (text.find('\0') != std::string::npos)
        return fail("SMBIOS {}: holds a zero byte", what);
    return {};
}

Result<> check(const SmbiosIdentity& identity) {
    TRY(check_string("BIOS vendor", identity.bios_vendor));
    TRY(check_string("BIOS version", identity.bios_version));
    TRY(check_string("BIOS date", identity.bios_date));
    TRY(check_string("manufacturer", identity.manufacturer));
    TRY(check_string("product", identity.product));
    TRY(check_string("version", identity.version));
    TRY(check_string("serial number", identity.serial));
    TRY(check_string("SKU", identity.sku));
    TRY(check_string("family", identity.family));
    TRY(check_string("board asset tag", identity.board_asset_tag));
    TRY(check_string("chassis asset tag", identity.chassis_asset_tag));
    if (identity.oem_strings.size() > 255)
        return fail("SMBIOS OEM strings: {} given, at most 255 are possible",
                    identity.oem_strings.size());
    for (const auto& text : identity.oem_strings) {
        TRY(check_string("OEM string", text));
        // An empty one would end the list.
        if (text.empty())
            return fail("SMBIOS OEM string: is empty");
    }
    return {};
}

std::optional<std::uint8_t> hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return static_cast<std::uint8_t>(c - '0');
    const char lower = static_cast<char>(c | 0x20);
    if (lower >= 'a' && lower <= 'f')
        return static_cast<std::uint8_t>(lower - 'a' + 10);
    return std::nullopt;
}

}  // namespace

Result<Uuid> parse_uuid(std::string_view text) {
    constexpr std::string_view shape = "00000000-0000-0000-0000-000000000000";
    const auto unfit = fail("UUID {}: must look like {}", text, shape);
    if (text.size() != shape.size())
        return unfit;
    Uuid uuid{};
    std::size_t digits = 0;
    for (std::size_t i = 0; i < shape.size(); ++i) {
        if (shape[i] == '-') {
            if (text[i] != '-')
                return unfit;
            continue;
        }
        const auto digit = hex_digit(text[i]);
        if (!digit)
            return unfit;
        auto& byte = uuid[digits++ / 2];
        byte = static_cast<std::uint8_t>(byte << 4 | *digit);
    }
    return uuid;
}

Result<std::vector<std::byte>> build_smbios(const SmbiosDescription& description) {
    TRY(check(description.identity));
    const auto table = structures(description);
    Bytes all = entry_point(table.size());
    all.resize(structures_offset);
    append(all, table);
    constexpr auto room = layout::smbios_end - layout::smbios;
    if (all.size() > room)
        return fail("SMBIOS: {} bytes do not fit in {}; give fewer or shorter OEM strings",
                    all.size(), room);
    return all;
}

Result<> install_smbios(const SmbiosDescription& description, const GuestMemory& memory) {
    const auto built = TRY(build_smbios(description));
    if (!memory.write({layout::smbios}, built))
        return fail("SMBIOS: guest memory ends below {:#x}", layout::smbios_end);
    return {};
}

}  // namespace masu::acpi
