#include "firmware/boot/find_boot.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace masu::firmware {

namespace {

struct Place {
    ConfigKind kind;
    std::string_view path;
};

constexpr std::array places{
    Place{ConfigKind::Bls, "/loader/entries"},
    Place{ConfigKind::Bls, "/boot/loader/entries"},
    Place{ConfigKind::Grub, "/boot/grub/grub.cfg"},
    Place{ConfigKind::Grub, "/grub/grub.cfg"},
    Place{ConfigKind::Grub, "/boot/grub2/grub.cfg"},
    Place{ConfigKind::Grub, "/grub2/grub.cfg"},
    Place{ConfigKind::Extlinux, "/boot/extlinux/extlinux.conf"},
    Place{ConfigKind::Extlinux, "/extlinux/extlinux.conf"},
    Place{ConfigKind::Extlinux, "/boot/extlinux.conf"},
    Place{ConfigKind::Extlinux, "/extlinux.conf"},
    Place{ConfigKind::Extlinux, "/boot/syslinux/syslinux.cfg"},
    Place{ConfigKind::Extlinux, "/syslinux/syslinux.cfg"},
    Place{ConfigKind::Extlinux, "/syslinux.cfg"},
};

BootResult read_config(ConfigKind kind, std::span<const BootDevice> devices, const BootFile& config,
                       Arena& arena) {
    switch (kind) {
        case ConfigKind::Bls:
            return read_bls_entries(devices, config, arena);
        case ConfigKind::Grub:
            return read_grub_config(devices, config, arena);
        case ConfigKind::Extlinux:
            break;
    }
    return read_extlinux_config(devices, config, arena);
}

// Reasons follow each other in one line.
BootFailure& next_reason(BootFailure& failure) {
    return failure.put(failure.empty() ? "" : "; ");
}

// Why a menu's default cannot be booted.
void explain(BootFailure& failure, std::span<const BootDevice> devices, const BootMenu& menu) {
    const auto& entry = menu.entries[menu.chosen];
    Message where;
    describe(where, devices[menu.config.device]);
    next_reason(failure).put_visible(menu.config.path).put(" on ").put(where.view());
    failure.put(": entry \"").put_visible(entry.title).put("\": ").put(entry.problem);
    if (!entry.problem_detail.empty())
        failure.put(": ").put_visible(entry.problem_detail);
}

// A file that is simply not there says nothing; damage on the way to it does.
bool is_absent(const Error& error) {
    return error.code == ErrorCode::NotFound || error.code == ErrorCode::NotDirectory;
}

// Why a place on a device cannot be looked at.
void explain(BootFailure& failure, const BootDevice& device, std::string_view path,
             const Error& error) {
    Message where;
    describe(where, device);
    next_reason(failure).put(path).put(" on ").put(where.view());
    failure.put(" cannot be opened: ").put(error.reason);
}

// The menu of the first place of `kind` on a device whose chosen entry can be booted; what stops
// the others is added to `failure`.
class Search {
  public:
    Search(std::span<const BootDevice> devices, Arena& arena, BootFailure& failure)
        : devices_(devices), arena_(arena), failure_(failure) {}

    std::optional<BootMenu> look(ConfigKind kind, std::size_t device) {
        for (const auto& place : places) {
            if (place.kind != kind || !is_there(device, place.path))
                continue;
            const auto menu = read_config(kind, devices_, {device, place.path}, arena_);
            if (menu && menu->entries[menu->chosen].problem == nullptr)
                return *menu;
            if (menu)
                explain(failure_, devices_, *menu);
            else
                next_reason(failure_).put(menu.error().view());
        }
        return std::nullopt;
    }

  private:
    bool is_there(std::size_t device, std::string_view path) {
        const auto file = devices_[device].fs->open(path);
        if (!file && !is_absent(file.error()) && !std::exchange(damaged_[device], true))
            explain(failure_, devices_[device], path, file.error());
        return file.has_value();
    }

    std::span<const BootDevice> devices_;
    Arena& arena_;
    BootFailure& failure_;
    std::array<bool, max_devices> damaged_{};  // said of a device once, not for each place
};

bool is_data(const Partition& partition) {
    // What holds no file system: BIOS boot, swap, LVM and RAID members.
    constexpr std::array silent{
        partition_type::bios_boot, guid("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f"),
        guid("e6d6d379-f507-44c2-a23c-238f2a3df928"), guid("a19d880f-05fc-4d3b-a006-743f0f84911e")};
    constexpr std::array<std::uint8_t, 3> silent_mbr{0x82, 0x8e, 0xfd};
    return std::ranges::find(silent, partition.type) == silent.end() &&
           std::ranges::find(silent_mbr, partition.mbr_type) == silent_mbr.end();
}

void add_note(DiskScan& scan, std::uint32_t disk, std::uint32_t partition, const char* what) {
    if (scan.note_count == scan.note_list.size())
        return;
    auto& message = scan.note_list[scan.note_count++];
    message = {};
    describe(message, disk, partition);
    message.put(": ").put(what);
}

void add_device(DiskScan& scan, BlockReader& reader, BootDevice device, Arena& arena) {
    if (scan.device_count == scan.device_list.size())
        return add_note(scan, device.disk, device.partition,
                        "more file systems than are read here");
    const auto mounted = mount(reader, arena);
    if (!mounted)
        return add_note(scan, device.disk, device.partition, mounted.error().reason);
    device.fs = *mounted;
    scan.device_list[scan.device_count++] = device;
}

void scan_disk(BlockReader& disk, std::uint32_t number, Arena& arena, DiskScan& scan) {
    const auto table = read_partitions(disk, arena);
    if (!table)
        return add_note(scan, number, 0, table.error().reason);
    if (table->warning != nullptr)
        add_note(scan, number, 0, table->warning);
    if (table->scheme == Scheme::None)
        return add_device(scan, disk, {.disk = number}, arena);
    for (const auto& partition : table->partitions) {
        if (partition.rejected != nullptr) {
            add_note(scan, number, partition.number, partition.rejected);
            continue;
        }
        if (!is_data(partition))
            continue;
        const std::size_t mark = arena.mark();
        auto* const reader =
            arena.make<PartitionReader>(disk, partition.first_lba, partition.block_count);
        if (reader == nullptr)
            return add_note(scan, number, partition.number, "no memory left");
        const std::size_t before = scan.device_count;
        add_device(scan, *reader,
                   {.disk = number,
                    .partition = partition.number,
                    .gpt = table->scheme == Scheme::Gpt,
                    .preferred = partition.active || partition.type == partition_type::xbootldr},
                   arena);
        if (scan.device_count == before)
            arena.rewind(mark);
    }
}

}  // namespace

void scan_disks(std::span<BlockReader* const> disks, Arena& arena, DiskScan& scan) noexcept {
    for (std::size_t i = 0; i < disks.size(); ++i)
        scan_disk(*disks[i], static_cast<std::uint32_t>(i), arena, scan);
}

std::expected<BootMenu, BootFailure> find_boot(std::span<const BootDevice> devices,
                                               std::optional<std::uint32_t> only_disk,
                                               Arena& arena) noexcept {
    BootFailure failure;
    devices = devices.first(std::min(devices.size(), max_devices));
    Search search(devices, arena, failure);
    std::uint32_t last_disk = 0;
    for (const auto& device : devices)
        last_disk = std::max(last_disk, device.disk);
    // (disk, kind, preferred or not, device), each over all of the next.
    for (std::uint32_t disk = 0; disk <= last_disk; ++disk) {
        if (only_disk && *only_disk != disk)
            continue;
        for (const auto kind : {ConfigKind::Bls, ConfigKind::Grub, ConfigKind::Extlinux})
            for (const bool preferred : {true, false})
                for (std::size_t i = 0; i < devices.size(); ++i) {
                    if (devices[i].disk != disk || devices[i].preferred != preferred)
                        continue;
                    if (const auto menu = search.look(kind, i))
                        return *menu;
                }
    }
    if (!failure.empty())
        return std::unexpected(failure);
    failure.put("no boot configuration (");
    for (std::size_t i = 0; i < places.size(); ++i)
        failure.put(i == 0 ? "" : ", ").put(places[i].path);
    failure.put(") on ");
    bool first = true;
    for (const auto& device : devices) {
        if (only_disk && device.disk != *only_disk)
            continue;
        Message where;
        describe(where, device);
        failure.put(first ? "" : ", ").put(where.view());
        first = false;
    }
    if (first)
        failure.put("any disk: there is no file system that can be read");
    return std::unexpected(failure);
}

}  // namespace masu::firmware
