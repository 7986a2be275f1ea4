#include "firmware/fs/fat.hpp"

#include <string>

#include <doctest/doctest.h>

#include "tests/unit/firmware/fs/memory_reader.hpp"
#include "tests/unit/firmware/fs/real_tree.hpp"

namespace masu::firmware::test {

namespace {

constexpr TreeShape fat_tree{.files = 150,
                             .huge_directory = 500,
                             .deep = 20,
                             .links = false,
                             .sparse = false,
                             .large_file = 1 << 20};

// A FAT32 file system of 600 clusters of 512 bytes, with `entries` in its root directory.
struct SmallFat {
    static constexpr std::size_t fat = 32 * 512;
    static constexpr std::size_t data = fat + 5 * 512;
    MemoryReader disk{std::vector<std::byte>(640 * 512)};

    SmallFat() {
        disk.store<std::uint8_t>(0, 0xeb);
        disk.store<std::uint16_t>(11, 512);
        disk.store<std::uint8_t>(13, 1);
        disk.store<std::uint16_t>(14, 32);
        disk.store<std::uint8_t>(16, 1);
        disk.store<std::uint8_t>(21, 0xf8);
        disk.store<std::uint32_t>(32, 637);
        disk.store<std::uint32_t>(36, 5);
        disk.store<std::uint32_t>(44, 2);
        disk.store<std::uint32_t>(67, 0x1c2d8a07);
        disk.store<std::uint16_t>(510, 0xaa55);
        link(2, 0x0fffffff);
    }
    void link(std::uint32_t cluster, std::uint32_t next) {
        disk.store<std::uint32_t>(fat + cluster * 4, next);
    }
    void entry(std::uint32_t cluster, std::size_t index, const char* name, std::uint8_t attributes,
               std::uint32_t first, std::uint32_t size) {
        const std::size_t at = data + (cluster - 2) * 512 + index * 32;
        std::memcpy(disk.bytes().data() + at, name, 11);
        disk.store<std::uint8_t>(at + 11, attributes);
        disk.store<std::uint16_t>(at + 26, static_cast<std::uint16_t>(first));
        disk.store<std::uint32_t>(at + 28, size);
    }
};

// Makes a file system of `size` with mkfs.fat's `options`, fills it with mcopy, and compares.
void check_image(const std::string& size, const std::string& options, std::string_view type,
                 std::uint32_t block_size = 512) {
    if (!have_tools({"mcopy", "mkfs.fat"}))
        return;
    TemporaryFolder folder;
    std::filesystem::create_directory(folder / "tree");
    TreeShape shape = fat_tree;
    if (type == "fat12")
        shape = {.files = 60,
                 .huge_directory = 150,
                 .deep = 5,
                 .links = false,
                 .sparse = false,
                 .large_file = 300000};
    make_tree(folder / "tree", shape);
    const std::string image = folder / "image";
    run("truncate -s " + size + " " + image + " && mkfs.fat " + options + " -i 1c2d8a07 -n MASU " +
        image);
    run("cd " + (folder / "tree") + " && LC_ALL=C.UTF-8 mcopy -s -Q -i " + image + " * ::");
    auto disk = MemoryReader::of_file(image, block_size);
    TestArena arena;
    const auto mounted = mount(disk, arena);
    REQUIRE(mounted.has_value());
    CHECK((*mounted)->type() == type);
    CHECK((*mounted)->uuid() == "1C2D-8A07");
    CHECK((*mounted)->label() == "MASU");
    const auto compared = compare_tree(**mounted, folder / "tree");
    CHECK(compared.files == shape.files + shape.huge_directory + 3);
}

Node open_or_fail(FileSystem& fs, std::string_view path) {
    const auto node = fs.open(path);
    REQUIRE_MESSAGE(node.has_value(), path);
    return *node;
}

}  // namespace

TEST_CASE("FAT12 as mkfs.fat and mcopy write it") {
    check_image("6M", "-F 12 -s 8", "fat12");
}
TEST_CASE("FAT16 as mkfs.fat and mcopy write it") {
    check_image("24M", "-F 16 -s 4", "fat16");
}
TEST_CASE("FAT32 as mkfs.fat and mcopy write it") {
    check_image("40M", "-F 32 -s 1", "fat32");
}
TEST_CASE("FAT16 on a disk of 4096-byte blocks") {
    check_image("40M", "-F 16 -S 4096 -s 1", "fat16", 4096);
}

TEST_CASE("FAT: a file written piece by piece among others is read whole") {
    if (!have_tools({"mcopy", "mdel", "mkfs.fat"}))
        return;
    TemporaryFolder folder;
    std::filesystem::create_directory(folder / "tree");
    const std::string image = folder / "image";
    // Every second small file is deleted, and the large one goes into the gaps.
    run("truncate -s 3M " + image + " && mkfs.fat -F 16 -s 1 " + image + " && cd " +
        folder.path().string() +
        " && for i in $(seq 100 199); do head -c 1500 /dev/urandom > $i; done && mcopy -i image "
        "1?? :: && mdel -i image $(seq -f ::%g 101 2 199) && rm 1?[13579] && mv 1?? tree "
        "&& head -c 700000 /dev/urandom > tree/large && mcopy -i image tree/large ::");
    auto disk = MemoryReader::of_file(image);
    TestArena arena;
    const auto mounted = mount(disk, arena);
    REQUIRE(mounted.has_value());
    CHECK(compare_tree(**mounted, folder / "tree").files == 51);
}

TEST_CASE("FAT: contiguous clusters are read in one request") {
    SmallFat fat;
    fat.entry(2, 0, "KERNEL     ", 0x20, 10, 200 * 512);
    for (std::uint32_t cluster = 10; cluster < 210; ++cluster)
        fat.link(cluster, cluster == 209 ? 0x0fffffff : cluster + 1);
    TestArena arena;
    const auto mounted = mount(fat.disk, arena);
    REQUIRE(mounted.has_value());
    const Node node = open_or_fail(**mounted, "/kernel");
    std::vector<std::byte> to(200 * 512);
    fat.disk.largest = 0;
    CHECK((*mounted)->read(node, 0, to) == to.size());
    CHECK(fat.disk.largest == to.size());
}

TEST_CASE("FAT: names are found whatever their case, short or long") {
    SmallFat fat;
    fat.entry(2, 0, "EFI        ", 0x10, 3, 0);
    fat.link(3, 0x0fffffff);
    fat.entry(3, 0, ".          ", 0x10, 3, 0);
    fat.entry(3, 1, "..         ", 0x10, 0, 0);
    fat.entry(3, 2, "BOOTX64 EFI", 0x20, 4, 100);
    fat.link(4, 0x0fffffff);
    TestArena arena;
    const auto mounted = mount(fat.disk, arena);
    REQUIRE(mounted.has_value());
    CHECK(open_or_fail(**mounted, "/EFI/BOOTX64.EFI").size == 100);
    CHECK(open_or_fail(**mounted, "efi//bootx64.efi").size == 100);
    CHECK(open_or_fail(**mounted, "/efi/../efi/./BootX64.efi").size == 100);
    CHECK(open_or_fail(**mounted, "/../..").id == 2);
    CHECK((*mounted)->open("/efi/missing").error().code == ErrorCode::NotFound);
    CHECK((*mounted)->open("/efi/bootx64.efi/x").error().code == ErrorCode::NotDirectory);
}

TEST_CASE("FAT: a directory whose chain loops ends with an error") {
    SmallFat fat;
    fat.entry(2, 0, "LOOP       ", 0x10, 3, 0);
    fat.link(3, 4);
    fat.link(4, 3);
    for (std::uint32_t cluster = 3; cluster < 5; ++cluster)
        for (std::size_t i = 0; i < 16; ++i)
            fat.entry(cluster, i, "FILE    TXT", 0x20, 9, 1);
    TestArena arena;
    const auto mounted = mount(fat.disk, arena);
    REQUIRE(mounted.has_value());
    const auto found = (*mounted)->open("/loop/nothing");
    REQUIRE(!found.has_value());
    CHECK(found.error().code == ErrorCode::Corrupt);
}

TEST_CASE("FAT: damaged chains and sizes are errors, not endless reads") {
    SmallFat fat;
    fat.entry(2, 0, "SHORT      ", 0x20, 10, 5000);
    fat.link(10, 0x0fffffff);
    fat.entry(2, 1, "OUTSIDE    ", 0x20, 10000, 5000);
    fat.entry(2, 2, "ABSURD     ", 0x20, 11, 0xffffffff);
    fat.link(11, 12);
    fat.link(12, 11);
    fat.entry(2, 3, "NOWHERE    ", 0x20, 0, 10);
    TestArena arena;
    const auto mounted = mount(fat.disk, arena);
    REQUIRE(mounted.has_value());
    std::vector<std::byte> to(1 << 20);
    for (const auto* const name : {"short", "outside", "absurd", "nowhere"}) {
        INFO(name);
        const auto got = (*mounted)->read(open_or_fail(**mounted, name), 0, to);
        REQUIRE(!got.has_value());
        CHECK(got.error().code == ErrorCode::Corrupt);
    }
}

TEST_CASE("FAT: a device's failure is passed on") {
    SmallFat fat;
    fat.entry(2, 0, "FILE       ", 0x20, 100, 512);
    fat.link(100, 0x0fffffff);
    TestArena arena;
    const auto mounted = mount(fat.disk, arena);
    REQUIRE(mounted.has_value());
    const Node node = open_or_fail(**mounted, "file");
    fat.disk.broken = SmallFat::data / 512 + 98;
    std::vector<std::byte> to(512);
    const auto got = (*mounted)->read(node, 0, to);
    REQUIRE(!got.has_value());
    CHECK(got.error().code == ErrorCode::Io);
}

TEST_CASE("FAT: a mount that fails gives its memory back, and one without memory says so") {
    MemoryReader zeros{std::vector<std::byte>(1 << 20)};
    TestArena arena;
    const auto before = arena->left();
    CHECK(mount(zeros, arena).error().code == ErrorCode::NotFound);
    CHECK(arena->left() == before);
    SmallFat fat;
    TestArena small(1000);
    CHECK(mount(fat.disk, small).error().code == ErrorCode::NoMemory);
}

}  // namespace masu::firmware::test
