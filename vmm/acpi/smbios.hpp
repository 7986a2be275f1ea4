// SMBIOS 3: who the machine says it is; cloud-init decides by these strings which cloud it is in.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "devices/guest_memory.hpp"

namespace masu::acpi {

using Uuid = std::array<std::uint8_t, 16>;  // in the order it is written as text

// "01234567-89ab-cdef-0123-456789abcdef", in any case.
[[nodiscard]] Result<Uuid> parse_uuid(std::string_view text);

// An empty string is left out ("not specified"); at most 255 bytes each, no zero byte. Defaults
// suit a machine that imitates no cloud. cloud-init: a uuid starting with ec2 means Amazon EC2 (so
// do serial = the uuid, manufacturer "Amazon EC2", product = the instance type, board_asset_tag =
// the instance id); a serial of "ds=nocloud;s=URL/" seeds NoCloud.
struct SmbiosIdentity {
    std::string bios_vendor = "Masu";
    std::string bios_version = "1.0";
    std::string bios_date = "01/01/2026";  // mm/dd/yyyy
    std::string manufacturer = "Masu";
    std::string product = "microVM";
    std::string version = "1.0";
    std::string serial;
    Uuid uuid{};  // all zeroes: not set
    std::string sku;
    std::string family;
    std::string board_asset_tag;           // type 2
    std::string chassis_asset_tag;         // type 3
    std::vector<std::string> oem_strings;  // type 11, for guest agents
};

struct SmbiosDescription {
    SmbiosIdentity identity;
    unsigned vcpus = 1;
    std::uint64_t memory_bytes = 0;  // all RAM; the hole below 4 GiB is taken from layout
};

// Entry point and structures (types 0, 1, 2, 3, 4, 16, 17, 19, 32, 127, and 11 when there are OEM
// strings), one piece for layout::smbios. Fails when a string is unfit or all of it is too long.
[[nodiscard]] Result<std::vector<std::byte>> build_smbios(const SmbiosDescription& description);

[[nodiscard]] Result<> install_smbios(const SmbiosDescription& description,
                                      const GuestMemory& memory);

}  // namespace masu::acpi
