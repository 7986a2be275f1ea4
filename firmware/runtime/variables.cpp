// Variables (UEFI 8.2). They live as long as the machine: there is nothing non-volatile to keep them
// in, so each boot starts without any but the firmware's own.
#include "firmware/runtime/runtime.hpp"

namespace masu::firmware {

using efi::Guid;
using efi::Status;

namespace {

constexpr std::size_t store_size = 65536;
constexpr std::size_t max_name = 512;  // UTF-16 units, final zero included
constexpr std::size_t max_data = 32768;

// Records lie one behind the other; name and data follow, each record a multiple of 8 bytes.
struct Record {
    std::uint32_t size;
    std::uint32_t attributes;
    std::uint32_t name_bytes;  // final zero included
    std::uint32_t data_bytes;
    Guid vendor;
};
static_assert(sizeof(Record) == 32);

alignas(8) constinit std::byte store[store_size] = {};
constinit std::size_t used = 0;

Record* record_at(std::size_t offset) noexcept {
    return reinterpret_cast<Record*>(store + offset);
}
std::byte* name_of(Record& record) noexcept {
    return reinterpret_cast<std::byte*>(&record + 1);
}
std::byte* data_of(Record& record) noexcept {
    return name_of(record) + record.name_bytes;
}

// Bytes, final zero included; 0 when the name is empty or too long.
std::size_t name_size(const char16_t* name) noexcept {
    for (std::size_t i = 0; i < max_name; ++i)
        if (name[i] == 0)
            return i == 0 ? 0 : (i + 1) * sizeof(char16_t);
    return 0;
}

bool is_visible(const Record& record) noexcept {
    return !at_runtime() || (record.attributes & efi::variable_runtime_access) != 0;
}

bool is(Record& record, const char16_t* name, std::size_t bytes, const Guid& vendor) noexcept {
    return record.vendor == vendor && record.name_bytes == bytes &&
           std::memcmp(name_of(record), name, bytes) == 0;
}

Record* find(const char16_t* name, const Guid& vendor) noexcept {
    const auto bytes = name_size(name);
    for (std::size_t at = 0; bytes != 0 && at < used; at += record_at(at)->size)
        if (is(*record_at(at), name, bytes, vendor))
            return record_at(at);
    return nullptr;
}

void remove(Record& record) noexcept {
    auto* const start = reinterpret_cast<std::byte*>(&record);
    const std::size_t size = record.size;
    const auto behind = static_cast<std::size_t>(start - store) + size;
    std::memmove(start, start + size, used - behind);
    used -= size;
}

Status append_record(const char16_t* name, const Guid& vendor, std::uint32_t attributes,
                     std::span<const std::byte> head, std::span<const std::byte> tail) noexcept {
    const auto name_bytes = name_size(name);
    const std::size_t data_bytes = head.size() + tail.size();
    const std::size_t size = (sizeof(Record) + name_bytes + data_bytes + 7) & ~std::size_t{7};
    if (data_bytes > max_data || size > store_size - used)
        return Status::OutOfResources;
    auto& record = *record_at(used);
    record = {static_cast<std::uint32_t>(size), attributes, static_cast<std::uint32_t>(name_bytes),
              static_cast<std::uint32_t>(data_bytes), vendor};
    std::memcpy(name_of(record), name, name_bytes);
    if (!head.empty())
        std::memcpy(data_of(record), head.data(), head.size());
    if (!tail.empty())
        std::memcpy(data_of(record) + head.size(), tail.data(), tail.size());
    used += size;
    return Status::Success;
}

Status check(const char16_t* name, std::uint32_t attributes, std::size_t size) noexcept {
    constexpr std::uint32_t known = efi::variable_non_volatile | efi::variable_boot_access |
                                    efi::variable_runtime_access | efi::variable_append;
    if (name == nullptr || name_size(name) == 0)
        return Status::InvalidParameter;
    if ((attributes & ~known) != 0)
        return Status::Unsupported;  // authenticated and hardware-error records
    if ((attributes & efi::variable_runtime_access) != 0 &&
        (attributes & efi::variable_boot_access) == 0)
        return Status::InvalidParameter;
    if (size > max_data)
        return Status::OutOfResources;
    return Status::Success;
}

// Set by the firmware and for reading only: 3.3.
bool is_firmwares_own(const char16_t* name, const Guid& vendor) noexcept {
    constexpr const char16_t* names[] = {u"SecureBoot", u"SetupMode", u"AuditMode",
                                         u"DeployedMode", u"OsIndicationsSupported"};
    if (!(vendor == efi::guid::global_variable))
        return false;
    const auto bytes = name_size(name);
    for (const auto* own : names)
        if (bytes != 0 && name_size(own) == bytes && std::memcmp(own, name, bytes) == 0)
            return true;
    return false;
}

Status EFIAPI efi_get_variable(const char16_t* name, const Guid* vendor, std::uint32_t* attributes,
                               std::uint64_t* size, void* data) {
    if (name == nullptr || vendor == nullptr || size == nullptr)
        return Status::InvalidParameter;
    auto* record = find(name, *vendor);
    if (record == nullptr || !is_visible(*record))
        return Status::NotFound;
    if (attributes != nullptr)
        *attributes = record->attributes;
    const bool fits = *size >= record->data_bytes;
    *size = record->data_bytes;
    if (!fits)
        return Status::BufferTooSmall;
    if (data == nullptr)
        return Status::InvalidParameter;
    std::memcpy(data, data_of(*record), record->data_bytes);
    return Status::Success;
}

Status EFIAPI efi_next_variable(std::uint64_t* size, char16_t* name, Guid* vendor) {
    if (size == nullptr || name == nullptr || vendor == nullptr)
        return Status::InvalidParameter;
    std::size_t at = 0;
    if (name[0] != 0) {
        auto* record = find(name, *vendor);
        if (record == nullptr)
            return Status::InvalidParameter;
        at = static_cast<std::size_t>(reinterpret_cast<std::byte*>(record) - store) + record->size;
    }
    for (; at < used; at += record_at(at)->size) {
        auto& record = *record_at(at);
        if (!is_visible(record))
            continue;
        const bool fits = *size >= record.name_bytes;
        *size = record.name_bytes;
        if (!fits)
            return Status::BufferTooSmall;
        std::memcpy(name, name_of(record), record.name_bytes);
        *vendor = record.vendor;
        return Status::Success;
    }
    return Status::NotFound;
}

Status EFIAPI efi_set_variable(const char16_t* name, const Guid* vendor, std::uint32_t attributes,
                               std::uint64_t size, const void* data) {
    if (name == nullptr || vendor == nullptr || (size != 0 && data == nullptr))
        return Status::InvalidParameter;
    if (is_firmwares_own(name, *vendor))
        return Status::WriteProtected;
    return set_variable(name, *vendor, attributes,
                        {static_cast<const std::byte*>(data), static_cast<std::size_t>(size)});
}

Status EFIAPI efi_query_variable_info(std::uint32_t attributes, std::uint64_t* total,
                                      std::uint64_t* left, std::uint64_t* largest) {
    if (total == nullptr || left == nullptr || largest == nullptr ||
        check(u"x", attributes, 0) == Status::InvalidParameter || attributes == 0)
        return Status::InvalidParameter;
    if (check(u"x", attributes, 0) != Status::Success)
        return Status::Unsupported;
    *total = store_size;
    *left = store_size - used;
    *largest = *left < max_data ? *left : max_data;
    return Status::Success;
}

}  // namespace

Status set_variable(const char16_t* name, const Guid& vendor, std::uint32_t attributes,
                    std::span<const std::byte> data) noexcept {
    if (const auto bad = check(name, attributes, data.size()); bad != Status::Success)
        return bad;
    auto* old = find(name, vendor);
    if (at_runtime()) {
        if (old != nullptr && !is_visible(*old))
            return Status::WriteProtected;
        if (attributes != 0 && (attributes & efi::variable_runtime_access) == 0)
            return Status::InvalidParameter;
    }
    const bool append = (attributes & efi::variable_append) != 0;
    const std::uint32_t kept = attributes & ~efi::variable_append;
    const bool deletes = !append && (data.empty() || (kept & efi::variable_boot_access) == 0);
    if (old == nullptr)
        return deletes ? Status::NotFound
                       : (data.empty() ? Status::Success
                                       : append_record(name, vendor, kept, data, {}));
    if (deletes) {
        remove(*old);
        return Status::Success;
    }
    if (old->attributes != kept)
        return Status::InvalidParameter;
    if (append && data.empty())
        return Status::Success;
    // The new record first: when it does not fit, the old one stays.
    const std::span<const std::byte> head{data_of(*old), append ? old->data_bytes : 0};
    const auto status = append_record(name, vendor, kept, head, data);
    if (status == Status::Success)
        remove(*find(name, vendor));
    return status;
}

void fill_variable_services(efi::RuntimeServices& table) noexcept {
    table.get_variable = efi_get_variable;
    table.get_next_variable_name = efi_next_variable;
    table.set_variable = efi_set_variable;
    table.query_variable_info = efi_query_variable_info;
}

}  // namespace masu::firmware
