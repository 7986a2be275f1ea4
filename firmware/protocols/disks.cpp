#include "firmware/protocols/disks.hpp"

#include <algorithm>

#include "firmware/platform/say.hpp"
#include "firmware/protocols/install.hpp"
#include "firmware/services/handles.hpp"
#include "firmware/services/memory.hpp"
#include "firmware/virtio/rng.hpp"

namespace masu::firmware {

using efi::Status;

namespace {

constinit Disk* disks[max_disks] = {};
constinit std::size_t disk_count = 0;

template <class Protocol>
BlockDevice& device_of(Protocol* protocol) noexcept {
    constexpr std::size_t offset = std::is_same_v<Protocol, efi::DiskIo>
                                       ? offsetof(BlockDevice, disk_io)
                                       : offsetof(BlockDevice, block_io);
    return *reinterpret_cast<BlockDevice*>(reinterpret_cast<std::byte*>(protocol) - offset);
}

Status check(const BlockDevice& device, std::uint32_t media, std::uint64_t lba,
             std::uint64_t size) noexcept {
    if (media != device.media.media_id)
        return Status::MediaChanged;
    if (size % device.media.block_size != 0)
        return Status::BadBufferSize;
    const std::uint64_t blocks = size / device.media.block_size;
    if (lba > device.block_count || blocks > device.block_count - lba)
        return Status::InvalidParameter;
    return Status::Success;
}

Status EFIAPI block_reset(efi::BlockIo*, efi::Bool) {
    return Status::Success;
}

Status EFIAPI read_blocks(efi::BlockIo* self, std::uint32_t media, std::uint64_t lba,
                          std::uint64_t size, void* to) {
    auto& device = device_of(self);
    if (const auto bad = check(device, media, lba, size); bad != Status::Success)
        return bad;
    if (size == 0)
        return Status::Success;
    if (to == nullptr)
        return Status::InvalidParameter;
    const auto done = device.blk->read(device.first_lba + lba,
                                       {static_cast<std::byte*>(to), static_cast<std::size_t>(size)});
    return done ? Status::Success : Status::DeviceError;
}

Status EFIAPI write_blocks(efi::BlockIo* self, std::uint32_t media, std::uint64_t lba,
                           std::uint64_t size, const void* from) {
    auto& device = device_of(self);
    if (device.media.read_only != 0)
        return Status::WriteProtected;
    if (const auto bad = check(device, media, lba, size); bad != Status::Success)
        return bad;
    if (size == 0)
        return Status::Success;
    if (from == nullptr)
        return Status::InvalidParameter;
    const auto done =
        device.blk->write(device.first_lba + lba,
                          {static_cast<const std::byte*>(from), static_cast<std::size_t>(size)});
    return done ? Status::Success : Status::DeviceError;
}

Status EFIAPI flush_blocks(efi::BlockIo* self) {
    return device_of(self).blk->flush() ? Status::Success : Status::DeviceError;
}

// The whole blocks of a byte range go straight to or from the buffer; ragged ends through a block.
Status transfer_bytes(BlockDevice& device, std::uint64_t offset, std::uint64_t size,
                      std::byte* to, const std::byte* from) noexcept {
    alignas(8) std::byte block[4096];
    const std::uint64_t block_size = device.media.block_size;
    auto* io = &device.block_io;
    while (size != 0) {
        const std::uint64_t lba = offset / block_size;
        const std::uint64_t skip = offset % block_size;
        std::uint64_t part = size & ~(block_size - 1);
        auto status = Status::Success;
        if (skip == 0 && part != 0) {
            status = to != nullptr ? read_blocks(io, device.media.media_id, lba, part, to)
                                   : write_blocks(io, device.media.media_id, lba, part, from);
        } else {
            part = std::min(size, block_size - skip);
            status = read_blocks(io, device.media.media_id, lba, block_size, block);
            if (status == Status::Success && to != nullptr) {
                std::memcpy(to, block + skip, part);
            } else if (status == Status::Success) {
                std::memcpy(block + skip, from, part);
                status = write_blocks(io, device.media.media_id, lba, block_size, block);
            }
        }
        if (status != Status::Success)
            return status;
        offset += part;
        size -= part;
        to = to == nullptr ? nullptr : to + part;
        from = from == nullptr ? nullptr : from + part;
    }
    return Status::Success;
}

Status check_bytes(const BlockDevice& device, std::uint32_t media, std::uint64_t offset,
                   std::uint64_t size, const void* buffer) noexcept {
    if (media != device.media.media_id)
        return Status::MediaChanged;
    const std::uint64_t whole = device.block_count * device.media.block_size;
    if (offset > whole || size > whole - offset || (buffer == nullptr && size != 0))
        return Status::InvalidParameter;
    return Status::Success;
}

Status EFIAPI read_disk(efi::DiskIo* self, std::uint32_t media, std::uint64_t offset,
                        std::uint64_t size, void* to) {
    auto& device = device_of(self);
    const auto bad = check_bytes(device, media, offset, size, to);
    return bad != Status::Success
               ? bad
               : transfer_bytes(device, offset, size, static_cast<std::byte*>(to), nullptr);
}

Status EFIAPI write_disk(efi::DiskIo* self, std::uint32_t media, std::uint64_t offset,
                         std::uint64_t size, const void* from) {
    auto& device = device_of(self);
    if (device.media.read_only != 0)
        return Status::WriteProtected;
    const auto bad = check_bytes(device, media, offset, size, from);
    return bad != Status::Success
               ? bad
               : transfer_bytes(device, offset, size, nullptr,
                                static_cast<const std::byte*>(from));
}

bool install(BlockDevice& device, bool is_partition) noexcept {
    const auto& blk = *device.blk;
    device.media = {.media_id = 1,
                    .removable = 0,
                    .present = 1,
                    .logical_partition = static_cast<efi::Bool>(is_partition ? 1 : 0),
                    .read_only = static_cast<efi::Bool>(blk.read_only() ? 1 : 0),
                    .write_caching = 1,
                    .block_size = blk.block_size(),
                    .io_align = 0,
                    .last_block = device.block_count == 0 ? 0 : device.block_count - 1,
                    .lowest_aligned_lba = 0,
                    .logical_blocks_per_physical = 1,
                    .optimal_transfer_granularity = 2048};
    device.block_io = {.revision = 0x2001f,
                       .media = &device.media,
                       .reset = block_reset,
                       .read_blocks = read_blocks,
                       .write_blocks = write_blocks,
                       .flush_blocks = flush_blocks};
    device.disk_io = {.revision = 0x10000, .read_disk = read_disk, .write_disk = write_disk};
    device.path.pci.device = blk.device().slot;
    return install_protocol(device.handle, efi::guid::device_path, &device.path) ==
               Status::Success &&
           install_protocol(device.handle, efi::guid::block_io, &device.block_io) ==
               Status::Success &&
           install_protocol(device.handle, efi::guid::disk_io, &device.disk_io) ==
               Status::Success;
}

BlockDevice* add_partition(const Disk& disk, const Partition& partition) noexcept {
    auto* device = make<BlockDevice>();
    if (device == nullptr)
        return nullptr;
    device->blk = disk.device.blk;
    device->first_lba = partition.first_lba;
    device->block_count = partition.block_count;
    auto& node = device->path.partition;
    node.number = partition.number;
    node.start = partition.first_lba;
    node.size = partition.block_count;
    const bool gpt = disk.table.scheme == Scheme::Gpt;
    node.format = gpt ? 2 : 1;
    node.signature_type = node.format;
    if (gpt)
        std::memcpy(node.signature, partition.unique.bytes.data(), sizeof node.signature);
    else
        std::memcpy(node.signature, &disk.table.mbr_signature, sizeof disk.table.mbr_signature);
    return install(*device, true) ? device : nullptr;
}

// Where tables are read, one after the other; what is kept of them is copied.
Arena* scratch_arena() noexcept {
    constexpr std::uint64_t pages = 64;
    static constinit Arena* arena = nullptr;
    if (arena == nullptr)
        if (auto* memory = allocate_data_pages(pages); memory != nullptr)
            arena = make<Arena>(std::span(memory, pages * efi::page_size));
    if (arena != nullptr)
        arena->rewind(0);
    return arena;
}

void add_partitions(Disk& disk, std::uint64_t number) noexcept {
    auto* arena = scratch_arena();
    if (arena == nullptr)
        return;
    const auto table = read_partitions(*disk.device.blk, *arena);
    if (!table) {
        say("disk ", number, ": the partition table is unusable: ",
            std::string_view(table.error().reason));
        return;
    }
    auto* kept = static_cast<Partition*>(
        allocate_pool(efi::MemoryType::BootServicesData,
                      table->partitions.size() * sizeof(Partition) + 1));
    if (kept == nullptr)
        return;
    std::copy(table->partitions.begin(), table->partitions.end(), kept);
    disk.table = *table;
    disk.table.partitions = {kept, table->partitions.size()};
    if (table->warning != nullptr)
        say("disk ", number, ": ", std::string_view(table->warning));
    std::size_t at = 0;
    for (const auto& partition : table->partitions) {
        if (at == std::size(disk.partitions))
            break;
        if (partition.rejected != nullptr)
            say("disk ", number, ": partition ", std::uint64_t{partition.number},
                " is ignored: ", std::string_view(partition.rejected));
        else
            disk.partitions[at] = add_partition(disk, partition);
        ++at;
    }
}

Disk* add_disk(virtio::Blk& blk, std::uint64_t number) noexcept {
    auto* disk = make<Disk>();
    if (disk == nullptr)
        return nullptr;
    disk->device.blk = &blk;
    disk->device.block_count = blk.block_count();
    const efi::EndNode end;
    std::memcpy(static_cast<void*>(&disk->device.path.partition), &end, sizeof end);
    if (!install(disk->device, false))
        return nullptr;
    add_partitions(*disk, number);
    return disk;
}

}  // namespace

std::span<Disk* const> start_disks() noexcept {
    virtio::Device device;
    for (int slot = -1; disk_count < max_disks &&
                        virtio::find_device(virtio::DeviceType::Block, slot, device);
         slot = device.slot) {
        auto* blk = virtio::Blk::create(device);
        auto* disk = blk == nullptr ? nullptr : add_disk(*blk, disk_count + 1);
        if (disk != nullptr)
            disks[disk_count++] = disk;
    }
    return {disks, disk_count};
}

void stop_disks() noexcept {
    for (std::size_t i = 0; i < disk_count; ++i)
        disks[i]->device.blk->stop();
    virtio::stop_rng();
}

}  // namespace masu::firmware
