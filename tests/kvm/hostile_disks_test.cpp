// Disks that lie: cut off, looping, overlapping, absurd, damaged at random. The firmware says what
// is wrong and the machine ends; the monitor never notices.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "tests/kvm/firmware_machine.hpp"
#include "tests/unit/firmware/fs/memory_reader.hpp"
#include "tests/unit/firmware/fs/real_tree.hpp"

using namespace masu;
using namespace masu::test;
using masu::firmware::test::MemoryReader;
using masu::firmware::test::run;

namespace {

Ended run_disk(MemoryReader disk) {
    const DiskFile file("", 512);
    file.write(disk.bytes());
    return run_guest({.disks = {file.path()}, .load_options = "return"});
}

// It looked, found nothing that works, and told why.
void check_refused(const Ended& ended, std::string_view reason) {
    CAPTURE(ended.console);
    CAPTURE(reason);
    CHECK(ended.says(reason));
    CHECK(ended.says("masu: nothing more to try"));
    REQUIRE(ended.stop);
    CHECK(ended.stop->kind == StopKind::Error);
    CHECK_FALSE(ended.handover);
}

// Partitions of a GPT without its backup, and an empty disk around them.
struct GptEntry {
    std::uint64_t first, last;
};
MemoryReader make_gpt(std::span<const GptEntry> entries) {
    MemoryReader disk(std::vector<std::byte>(4 * MiB));
    disk.store<std::uint8_t>(446 + 4, 0xee);
    disk.store<std::uint32_t>(446 + 8, 1);
    disk.store<std::uint32_t>(446 + 12, 8191);
    disk.store<std::uint16_t>(510, 0xaa55);
    for (std::size_t i = 0; i < entries.size(); ++i) {
        const std::size_t at = 1024 + i * 128;
        disk.store<std::uint32_t>(at, 0x0fc63daf);  // some type
        disk.store<std::uint32_t>(at + 16, static_cast<std::uint32_t>(i + 1));
        disk.store(at + 32, entries[i].first);
        disk.store(at + 40, entries[i].last);
    }
    std::memcpy(disk.bytes().data() + 512, "EFI PART", 8);
    disk.store<std::uint32_t>(512 + 8, 0x10000);
    disk.store<std::uint32_t>(512 + 12, 92);
    disk.store<std::uint64_t>(512 + 24, 1);
    disk.store<std::uint64_t>(512 + 32, 8191);
    disk.store<std::uint64_t>(512 + 40, 34);
    disk.store<std::uint64_t>(512 + 48, 8158);
    disk.store<std::uint64_t>(512 + 72, 2);
    disk.store<std::uint32_t>(512 + 80, 128);
    disk.store<std::uint32_t>(512 + 84, 128);
    seal_gpt(disk);
    return disk;
}

// An ext4 of 8 MiB with a grub.cfg and a kernel of no use, and where things lie in it.
class Ext4Disk {
  public:
    Ext4Disk() {
        std::filesystem::create_directories(folder_ / "tree/boot/grub");
        std::ofstream(folder_ / "tree/boot/grub/grub.cfg")
            << "menuentry 'x' {\n linux /boot/k\n}\n";
        std::ofstream(folder_ / "tree/boot/k") << "no kernel";
        run("mke2fs -q -F -t ext4 -b 1024 -O ^metadata_csum,^has_journal -d " + (folder_ / "tree") +
            " " + image_ + " 8M");
        disk = MemoryReader::of_file(image_);
    }
    // Where a path's inode lies.
    std::size_t inode(const std::string& path) const {
        const auto text = run("debugfs -R 'imap " + path + "' " + image_);
        unsigned long block = 0;
        unsigned offset = 0;
        const auto at = text.find("located at block");
        REQUIRE(at != std::string::npos);
        REQUIRE(std::sscanf(text.c_str() + at, "located at block %lu, offset %x", &block,
                            &offset) == 2);
        return block * 1024 + offset;
    }
    std::size_t first_block(const std::string& path) const {
        return std::stoul(run("debugfs -R 'blocks " + path + "' " + image_ + " 2>/dev/null"));
    }
    MemoryReader disk{std::vector<std::byte>()};

  private:
    firmware::test::TemporaryFolder folder_;
    std::string image_ = folder_ / "image";
};

// 512 writes of single bytes, most of them where a disk keeps its tables.
void damage(MemoryReader& disk, std::size_t from, std::size_t size, unsigned seed) {
    std::mt19937 random(seed);
    for (int i = 0; i < 512; ++i)
        disk.bytes().at(from + random() % size) = static_cast<std::byte>(random());
}

}  // namespace

TEST_CASE("hostile GPTs: entries that overlap, that end before they start, that leave the disk") {
    check_refused(run_disk(make_gpt(std::array{GptEntry{2048, 4095}, GptEntry{3000, 5000}})),
                  "disk 1 partition 2: it overlaps another partition");
    check_refused(run_disk(make_gpt(std::array{GptEntry{4000, 3000}})),
                  "disk 1 partition 1: it ends before it starts");
    check_refused(run_disk(make_gpt(std::array{GptEntry{2048, ~0ULL}})),
                  "disk 1 partition 1: it lies outside the GPT's usable blocks");
    auto absurd = make_gpt(std::array{GptEntry{2048, 4095}});
    absurd.store<std::uint32_t>(512 + 80, 0xffff'ffff);
    seal_gpt(absurd);
    check_refused(run_disk(absurd), "the GPT's number of entries is absurd");
}

TEST_CASE("hostile ext4: extents that point at themselves, sizes and directories that cannot be") {
    const Ext4Disk sound;
    const auto config = sound.inode("/boot/grub/grub.cfg");
    check_refused(run_disk(sound.disk),
                  "it is not a Linux bzImage");  // as far as a sound one comes

    auto cyclic = sound.disk;
    const auto block = sound.first_block("/boot/grub/grub.cfg");
    const auto index = [&](std::size_t at) {
        cyclic.store<std::uint16_t>(at, 0xf30a);
        cyclic.store<std::uint16_t>(at + 2, 1);
        cyclic.store<std::uint16_t>(at + 4, 4);
        cyclic.store<std::uint16_t>(at + 6, 1);
        cyclic.store<std::uint32_t>(at + 12, 0);
        cyclic.store<std::uint32_t>(at + 16, static_cast<std::uint32_t>(block));
    };
    index(config + 40);
    index(block * 1024);
    check_refused(run_disk(cyclic), "/boot/grub/grub.cfg");

    auto large = sound.disk;
    large.store<std::uint32_t>(config + 4, 0xffff'ffff);
    large.store<std::uint32_t>(config + 108, 0x7fff'ffff);
    check_refused(run_disk(large), "the file is larger than 1 MiB");

    auto beyond = sound.disk;  // the directory's one block lies outside the file system
    beyond.store<std::uint32_t>(sound.inode("/boot/grub") + 40 + 12 + 8, 0x7fff'ffff);
    check_refused(run_disk(beyond), "on disk 1 (ext4) cannot be opened:");

    auto endless = sound.disk;  // an entry without a length: a walk would never end
    endless.store<std::uint16_t>(sound.first_block("/boot/grub") * 1024 + 4, 0);
    check_refused(run_disk(endless), "on disk 1 (ext4) cannot be opened:");

    auto absurd = sound.disk;
    absurd.store<std::uint32_t>(1024 + 24, 40);  // 2^50 bytes to a block
    check_refused(run_disk(absurd), "masu: disk 1: ");
}

TEST_CASE("ext4 damaged at random: the machine always ends") {
    const Ext4Disk sound;
    for (unsigned seed = 1; seed <= 8; ++seed) {
        CAPTURE(seed);
        auto disk = sound.disk;
        damage(disk, 1024, seed % 2 == 0 ? disk.bytes().size() / 8 : 16384, seed);
        const auto ended = run_disk(disk);
        CAPTURE(ended.console);
        CHECK(ended.stop);
        CHECK_FALSE(ended.handover);
    }
}

#ifdef MASU_EFI_TEST_DISK

namespace {

// The FAT of the test application's disk: one that mformat made, of 12 bits.
struct FatDisk {
    static constexpr std::size_t start = MiB;
    MemoryReader disk = MemoryReader::of_file(MASU_EFI_TEST_DISK);
    std::size_t fat = start + disk.load<std::uint16_t>(start + 14) * 512U;
    std::size_t fats = disk.load<std::uint8_t>(start + 16);
    std::size_t fat_bytes = disk.load<std::uint16_t>(start + 22) * 512U;
    std::size_t root = fat + fats * fat_bytes;

    std::size_t cluster_at(std::uint32_t cluster) const {
        const std::size_t data = root + disk.load<std::uint16_t>(start + 17) * 32U;
        return data + (cluster - 2) * disk.load<std::uint8_t>(start + 13) * 512;
    }
    // Of a name of 11 characters in the directory that starts at `at`.
    std::size_t entry(std::size_t at, const char* name) const {
        for (std::size_t i = 0; i < 64; ++i, at += 32)
            if (std::memcmp(disk.bytes().data() + at, name, 11) == 0)
                return at;
        FAIL("no such entry: ", name);
        return 0;
    }
    std::uint16_t first_cluster(std::size_t entry) const {
        return disk.load<std::uint16_t>(entry + 26);
    }
    void link(std::uint32_t cluster, std::uint32_t next) {
        for (std::size_t copy = 0; copy < fats; ++copy) {
            const std::size_t at = fat + copy * fat_bytes + cluster * 3 / 2;
            const auto old = disk.load<std::uint16_t>(at);
            const auto value = (cluster & 1) != 0 ? (old & 0x000fU) | next << 4
                                                  : (old & 0xf000U) | (next & 0x0fffU);
            disk.store(at, static_cast<std::uint16_t>(value));
        }
    }
};

}  // namespace

TEST_CASE("hostile FATs: chains and directories that bite their tails, a loader of absurd size") {
    const FatDisk sound;
    const auto efi = sound.entry(sound.root, "EFI        ");
    const auto boot = sound.entry(sound.cluster_at(sound.first_cluster(efi)), "BOOT       ");
    const auto loader = sound.entry(sound.cluster_at(sound.first_cluster(boot)), "BOOTX64 EFI");

    auto file = sound;
    file.link(sound.first_cluster(loader), sound.first_cluster(loader));
    check_refused(run_disk(file.disk), "masu: cannot load disk 1, partition 1");

    auto chain = sound;  // a directory whose only cluster follows itself
    std::memset(chain.disk.bytes().data() + loader, 'X', 11);
    for (std::size_t at = loader + 32; at < loader + 512 - loader % 512; at += 32)
        std::memcpy(chain.disk.bytes().data() + at, chain.disk.bytes().data() + loader, 32);
    chain.link(sound.first_cluster(boot), sound.first_cluster(boot));
    check_refused(run_disk(chain.disk), "masu: a FAT file system cannot be read: ");

    auto parent = sound;  // \EFI\BOOT is \EFI
    parent.disk.store(boot + 26, sound.first_cluster(efi));
    check_refused(run_disk(parent.disk), "no boot configuration");

    auto large = sound;
    large.disk.store<std::uint32_t>(loader + 28, 0xffff'ffff);
    check_refused(run_disk(large.disk), "masu: cannot load disk 1, partition 1");

    auto absurd = sound;
    absurd.disk.store<std::uint16_t>(FatDisk::start + 19, 0);
    absurd.disk.store<std::uint32_t>(FatDisk::start + 32, 0xffff'ffff);
    check_refused(run_disk(absurd.disk), "masu: cannot load disk 1, partition 1");
}

TEST_CASE("disks cut off anywhere: what is left is looked at, and the machine ends") {
    const FatDisk sound;
    for (const std::size_t size :
         {std::size_t{512}, std::size_t{4096}, MiB, MiB + 512, MiB + 16384, 2 * MiB, 3 * MiB}) {
        CAPTURE(size);
        auto disk = sound.disk;
        disk.bytes().resize(size);
        const auto ended = run_disk(disk);
        CAPTURE(ended.console);
        REQUIRE(ended.stop);
        CHECK(ended.stop->kind == StopKind::Error);
        CHECK_FALSE(ended.handover);
    }
}

TEST_CASE("FAT damaged at random: the machine always ends") {
    const FatDisk sound;
    for (unsigned seed = 1; seed <= 8; ++seed) {
        CAPTURE(seed);
        auto disk = sound.disk;
        damage(disk, FatDisk::start + 11, seed % 2 == 0 ? 16384 : 65536, seed);
        const auto ended = run_disk(disk);
        CAPTURE(ended.console);
        CHECK(ended.stop);
    }
}

#endif
