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

#include "firmware/bytes.hpp"
#include "firmware/crc32.hpp"
#include "tests/kvm/firmware_machine.hpp"

using namespace masu;
using namespace masu::test;

namespace {

template <class T>
T load(const std::vector<std::byte>& from, std::size_t at) {
    return firmware::load_le<T>(from, at);
}

template <class T>
void store(std::vector<std::byte>& to, std::size_t at, T value) {
    REQUIRE(at + sizeof value <= to.size());
    std::memcpy(to.data() + at, &value, sizeof value);
}

Ended run_disk(std::span<const std::byte> bytes) {
    const DiskFile disk("", 512);
    disk.write(bytes);
    return run_guest({.disks = {disk.path()}, .load_options = "return"});
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
std::vector<std::byte> make_gpt(std::span<const GptEntry> entries) {
    std::vector<std::byte> disk(4 * MiB);
    store<std::uint8_t>(disk, 446 + 4, 0xee);
    store<std::uint32_t>(disk, 446 + 8, 1);
    store<std::uint32_t>(disk, 446 + 12, 8191);
    store<std::uint16_t>(disk, 510, 0xaa55);
    for (std::size_t i = 0; i < entries.size(); ++i) {
        const std::size_t at = 1024 + i * 128;
        store<std::uint32_t>(disk, at, 0x0fc63daf);  // some type
        store<std::uint32_t>(disk, at + 16, static_cast<std::uint32_t>(i + 1));
        store(disk, at + 32, entries[i].first);
        store(disk, at + 40, entries[i].last);
    }
    std::memcpy(disk.data() + 512, "EFI PART", 8);
    store<std::uint32_t>(disk, 512 + 8, 0x10000);
    store<std::uint32_t>(disk, 512 + 12, 92);
    store<std::uint64_t>(disk, 512 + 24, 1);
    store<std::uint64_t>(disk, 512 + 32, 8191);
    store<std::uint64_t>(disk, 512 + 40, 34);
    store<std::uint64_t>(disk, 512 + 48, 8158);
    store<std::uint64_t>(disk, 512 + 72, 2);
    store<std::uint32_t>(disk, 512 + 80, 128);
    store<std::uint32_t>(disk, 512 + 84, 128);
    const auto bytes = std::span<const std::byte>(disk);
    store(disk, 512 + 88, firmware::crc32(bytes.subspan(1024, 128 * 128)));
    store(disk, 512 + 16, firmware::crc32(bytes.subspan(512, 92)));
    return disk;
}

// An ext4 of 8 MiB with a grub.cfg and a kernel of no use, and where things lie in it.
class Ext4Disk {
  public:
    Ext4Disk() {
        const std::string tree = disk_.path() + ".tree";
        std::filesystem::create_directories(tree + "/boot/grub");
        std::ofstream(tree + "/boot/grub/grub.cfg") << "menuentry 'x' {\n linux /boot/k\n}\n";
        std::ofstream(tree + "/boot/k") << "no kernel";
        const std::string made =
            run("mke2fs -q -F -t ext4 -b 1024 -O ^metadata_csum,^has_journal -d " + tree + " " +
                disk_.path() + " 8M && echo made");
        std::filesystem::remove_all(tree);
        REQUIRE(made.find("made") != std::string::npos);
        bytes = disk_.read();
    }
    // Where a path's inode lies.
    std::size_t inode(const std::string& path) const {
        const auto text = run("debugfs -R 'imap " + path + "' " + disk_.path() + " 2>&1");
        unsigned long block = 0;
        unsigned offset = 0;
        const auto at = text.find("located at block");
        REQUIRE(at != std::string::npos);
        REQUIRE(std::sscanf(text.c_str() + at, "located at block %lu, offset %x", &block,
                            &offset) == 2);
        return block * 1024 + offset;
    }
    std::size_t first_block(const std::string& path) const {
        return std::stoul(run("debugfs -R 'blocks " + path + "' " + disk_.path() + " 2>/dev/null"));
    }
    std::vector<std::byte> bytes;

  private:
    static std::string run(const std::string& command) {
        std::string text;
        FILE* pipe = ::popen(("PATH=$PATH:/sbin:/usr/sbin; " + command).c_str(), "r");
        REQUIRE(pipe != nullptr);
        for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe))
            text += static_cast<char>(c);
        CAPTURE(text);
        CHECK(::pclose(pipe) == 0);
        return text;
    }
    DiskFile disk_{"", 8 * MiB};
};

// 512 writes of single bytes, most of them where a disk keeps its tables.
void damage(std::vector<std::byte>& disk, std::size_t from, std::size_t size, unsigned seed) {
    std::mt19937 random(seed);
    for (int i = 0; i < 512; ++i)
        disk.at(from + random() % size) = static_cast<std::byte>(random());
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
    store<std::uint32_t>(absurd, 512 + 80, 0xffff'ffff);
    store<std::uint32_t>(absurd, 512 + 16, 0);
    store(absurd, 512 + 16, firmware::crc32(std::span<const std::byte>(absurd).subspan(512, 92)));
    check_refused(run_disk(absurd), "the GPT's number of entries is absurd");
}

TEST_CASE("hostile ext4: extents that point at themselves, sizes and directories that cannot be") {
    const Ext4Disk sound;
    const auto config = sound.inode("/boot/grub/grub.cfg");
    auto works = sound.bytes;
    check_refused(run_disk(works), "it is not a Linux bzImage");  // as far as a sound one comes

    auto cyclic = sound.bytes;
    const auto block = sound.first_block("/boot/grub/grub.cfg");
    const auto index = [&](std::size_t at) {
        store<std::uint16_t>(cyclic, at, 0xf30a);
        store<std::uint16_t>(cyclic, at + 2, 1);
        store<std::uint16_t>(cyclic, at + 4, 4);
        store<std::uint16_t>(cyclic, at + 6, 1);
        store<std::uint32_t>(cyclic, at + 12, 0);
        store<std::uint32_t>(cyclic, at + 16, static_cast<std::uint32_t>(block));
    };
    index(config + 40);
    index(block * 1024);
    check_refused(run_disk(cyclic), "/boot/grub/grub.cfg");

    auto large = sound.bytes;
    store<std::uint32_t>(large, config + 4, 0xffff'ffff);
    store<std::uint32_t>(large, config + 108, 0x7fff'ffff);
    check_refused(run_disk(large), "the file is larger than 1 MiB");

    auto beyond = sound.bytes;  // the directory's one block lies outside the file system
    store<std::uint32_t>(beyond, sound.inode("/boot/grub") + 40 + 12 + 8, 0x7fff'ffff);
    check_refused(run_disk(beyond), "on disk 1 (ext4) cannot be opened:");

    auto endless = sound.bytes;  // an entry without a length: a walk would never end
    store<std::uint16_t>(endless, sound.first_block("/boot/grub") * 1024 + 4, 0);
    check_refused(run_disk(endless), "on disk 1 (ext4) cannot be opened:");

    auto absurd = sound.bytes;
    store<std::uint32_t>(absurd, 1024 + 24, 40);  // 2^50 bytes to a block
    check_refused(run_disk(absurd), "masu: disk 1: ");
}

TEST_CASE("ext4 damaged at random: the machine always ends") {
    const Ext4Disk sound;
    for (unsigned seed = 1; seed <= 8; ++seed) {
        CAPTURE(seed);
        auto bytes = sound.bytes;
        damage(bytes, 1024, seed % 2 == 0 ? bytes.size() / 8 : 16384, seed);
        const auto ended = run_disk(bytes);
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
    std::vector<std::byte> bytes = DiskFile(MASU_EFI_TEST_DISK).read();
    std::size_t fat = start + load<std::uint16_t>(bytes, start + 14) * 512U;
    std::size_t fats = std::to_integer<std::size_t>(bytes[start + 16]);
    std::size_t fat_bytes = load<std::uint16_t>(bytes, start + 22) * 512U;
    std::size_t root = fat + fats * fat_bytes;

    std::size_t cluster_at(std::uint32_t cluster) const {
        const std::size_t data = root + load<std::uint16_t>(bytes, start + 17) * 32U;
        return data + (cluster - 2) * std::to_integer<std::size_t>(bytes[start + 13]) * 512;
    }
    // Of a name of 11 characters in the directory that starts at `at`.
    std::size_t entry(std::size_t at, const char* name) const {
        for (std::size_t i = 0; i < 64; ++i, at += 32)
            if (std::memcmp(bytes.data() + at, name, 11) == 0)
                return at;
        FAIL("no such entry: ", name);
        return 0;
    }
    std::uint16_t first_cluster(std::size_t entry) const {
        return load<std::uint16_t>(bytes, entry + 26);
    }
    void link(std::uint32_t cluster, std::uint32_t next) {
        for (std::size_t copy = 0; copy < fats; ++copy) {
            const std::size_t at = fat + copy * fat_bytes + cluster * 3 / 2;
            const auto old = load<std::uint16_t>(bytes, at);
            const auto value = (cluster & 1) != 0 ? (old & 0x000fU) | next << 4
                                                  : (old & 0xf000U) | (next & 0x0fffU);
            store(bytes, at, static_cast<std::uint16_t>(value));
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
    check_refused(run_disk(file.bytes), "masu: cannot load disk 1, partition 1");

    auto chain = sound;  // a directory whose only cluster follows itself
    std::memset(chain.bytes.data() + loader, 'X', 11);
    for (std::size_t at = loader + 32; at < loader + 512 - loader % 512; at += 32)
        std::memcpy(chain.bytes.data() + at, chain.bytes.data() + loader, 32);
    chain.link(sound.first_cluster(boot), sound.first_cluster(boot));
    check_refused(run_disk(chain.bytes), "masu: a FAT file system cannot be read: ");

    auto parent = sound;  // \EFI\BOOT is \EFI
    store(parent.bytes, boot + 26, sound.first_cluster(efi));
    check_refused(run_disk(parent.bytes), "no boot configuration");

    auto large = sound;
    store<std::uint32_t>(large.bytes, loader + 28, 0xffff'ffff);
    check_refused(run_disk(large.bytes), "masu: cannot load disk 1, partition 1");

    auto absurd = sound;
    store<std::uint16_t>(absurd.bytes, FatDisk::start + 19, 0);
    store<std::uint32_t>(absurd.bytes, FatDisk::start + 32, 0xffff'ffff);
    check_refused(run_disk(absurd.bytes), "masu: cannot load disk 1, partition 1");
}

TEST_CASE("disks cut off anywhere: what is left is looked at, and the machine ends") {
    const FatDisk sound;
    for (const std::size_t size :
         {std::size_t{512}, std::size_t{4096}, MiB, MiB + 512, MiB + 16384, 2 * MiB, 3 * MiB}) {
        CAPTURE(size);
        auto bytes = sound.bytes;
        bytes.resize(size);
        const auto ended = run_disk(bytes);
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
        auto bytes = sound.bytes;
        damage(bytes, FatDisk::start + 11, seed % 2 == 0 ? 16384 : 65536, seed);
        const auto ended = run_disk(bytes);
        CAPTURE(ended.console);
        CHECK(ended.stop);
    }
}

#endif
