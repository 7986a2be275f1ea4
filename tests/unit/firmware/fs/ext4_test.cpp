#include "firmware/fs/ext4.hpp"

#include <fstream>
#include <string>

#include <doctest/doctest.h>

#include "firmware/bytes.hpp"
#include "tests/unit/firmware/fs/file_reader.hpp"
#include "tests/unit/firmware/fs/memory_reader.hpp"
#include "tests/unit/firmware/fs/real_tree.hpp"

namespace masu::firmware::test {

namespace {

// Makes a file system with mke2fs's `options` from a tree, and compares. e2fsck -D turns large
// directories into hashed ones.
void check_image(const std::string& options, std::string_view type, const TreeShape& shape = {},
                 std::uint32_t block_size = 512) {
    if (!have_tools({"mke2fs", "e2fsck"}))
        return;
    TemporaryFolder folder;
    std::filesystem::create_directory(folder / "tree");
    make_tree(folder / "tree", shape);
    const std::string image = folder / "image";
    run("truncate -s 96M " + image + " && mke2fs -q -F -L 'a label' " + options +
        " -U 5c8d2e2f-6f0c-4f7e-9d2a-0123456789ab -d " + (folder / "tree") + " " + image);
    FileReader disk(image, block_size);
    for (const bool hashed : {false, true}) {
        if (hashed && shape.huge_directory < 2000)
            break;
        if (hashed)
            run("e2fsck -fyD " + image + " >/dev/null; [ $? -le 1 ]");
        TestArena arena;
        const auto mounted = mount(disk, arena);
        REQUIRE(mounted.has_value());
        CHECK((*mounted)->type() == type);
        CHECK((*mounted)->label() == "a label");
        CHECK((*mounted)->uuid() == "5c8d2e2f-6f0c-4f7e-9d2a-0123456789ab");
        const auto compared = compare_tree(**mounted, folder / "tree", "lost+found");
        CHECK(compared.files == shape.files + shape.huge_directory + 3 + (shape.sparse ? 1 : 0));
        CHECK(compared.links == (shape.links ? 5 : 0));
    }
}

// A file system of 1 MiB whose hostile variants are made by overwriting.
struct SmallExt4 {
    TemporaryFolder folder;
    MemoryReader disk{{}};

    explicit SmallExt4(const std::string& options = "-t ext4 -b 1024 -O ^has_journal") {
        std::filesystem::create_directories(folder / "tree/dir");
        run("cd " + (folder / "tree") +
            " && seq 1 2000 > file && ln -s file link && ln -s ../self dir/loop && ln -s self self"
            " && ln -s dir/../dir/../link chain && seq 1 9000 > big");
        run("truncate -s 1M " + (folder / "image") + " && mke2fs -q -F " + options + " -d " +
            (folder / "tree") + " " + (folder / "image"));
        disk = MemoryReader::of_file(folder / "image");
    }
    // The place of an inode's bytes, as debugfs tells it.
    std::size_t inode(const std::string& path) {
        run("debugfs -R 'imap " + path + "' " + (folder / "image") +
            " 2>/dev/null | sed -n 's/.*block \\([0-9]*\\), offset \\(0x[0-9a-f]*\\).*/\\1 \\2/p' "
            "> " +
            (folder / "imap"));
        std::ifstream text(folder / "imap");
        std::size_t block = 0;
        std::string offset;
        text >> block >> offset;
        REQUIRE(block != 0);
        return block * 1024 + std::stoul(offset, nullptr, 16);
    }
};

Result<std::size_t> read_file(BlockReader& disk, std::string_view path) {
    TestArena arena;
    const auto fs = TRY(mount_ext4(disk, arena));
    const Node node = TRY(fs->open(path));
    std::vector<std::byte> to(1 << 20);
    return fs->read(node, 0, to);
}

}  // namespace

TEST_CASE("ext4 as Debian makes it") {
    check_image("-t ext4 -b 4096", "ext4", {.files = 600, .huge_directory = 2000});
}
TEST_CASE("ext4 with 1 KiB blocks and without 64bit") {
    check_image("-t ext4 -b 1024 -O ^64bit,^metadata_csum", "ext4");
}
TEST_CASE("ext4 with data in inodes") {
    check_image("-t ext4 -O inline_data -I 512", "ext4", {.sparse = false});
}
TEST_CASE("ext4 with meta groups") {
    check_image("-t ext4 -b 1024 -O meta_bg,^resize_inode,^flex_bg", "ext4");
}
TEST_CASE("ext4 with clusters on a disk of 4096-byte blocks") {
    check_image("-t ext4 -O bigalloc -C 16384 -N 4096", "ext4", {}, 4096);
}
TEST_CASE("ext4 with 64 KiB blocks") {
    check_image("-t ext4 -b 65536 -N 4096", "ext4",
                {.deep = 10});
}
TEST_CASE("ext3") {
    check_image("-t ext3 -b 4096", "ext3");
}
TEST_CASE("ext2 with 1 KiB blocks and small inodes") {
    check_image("-t ext2 -b 1024 -I 128", "ext2", {.huge_directory = 2000, .large_file = 5 << 20});
}
TEST_CASE("ext2 of revision 0, without file types") {
    check_image("-t ext2 -r 0 -O none", "ext2", {});
}

TEST_CASE("ext4: fragmented and preallocated files") {
    if (!have_tools({"mke2fs", "debugfs", "e2fsck"}))
        return;
    TemporaryFolder folder;
    std::filesystem::create_directories(folder / "tree/small");
    // Every second small file is deleted, and the large one goes into the gaps.
    run("cd " + (folder / "tree/small") +
        " && yes | head -c 1080000 | split -a 4 -b 900 --numeric-suffixes=1000 - ''");
    const std::string image = folder / "image";
    std::string type;
    SUBCASE("extents") {
        type = "ext4";
    }
    SUBCASE("block pointers") {
        type = "ext2";
    }
    run("truncate -s 4M " + image + " && mke2fs -q -F -b 1024 -m 0 -N 1400 -O ^has_journal -t " +
        type + " -d " + (folder / "tree") + " " + image);
    run("cd " + folder.path().string() +
        " && head -c 700000 /dev/urandom > tree/large && { for i in $(seq 1000 2 2198); do "
        "echo rm /small/$i; rm tree/small/$i; done; echo write tree/large large; } > commands && "
        "debugfs -w -f commands image >/dev/null 2>&1");
    if (type == "ext4") {
        // Allocated but never written: zeros, whatever the blocks hold.
        run("cd " + folder.path().string() +
            " && debugfs -w -R 'fallocate large 700 800' image >/dev/null 2>&1 && "
            "debugfs -w -R 'set_inode_field large size 819200' image && "
            "truncate -s 819200 tree/large");
    }
    run("e2fsck -fn " + image + " >/dev/null");
    FileReader disk(image);
    TestArena arena;
    const auto mounted = mount(disk, arena);
    REQUIRE(mounted.has_value());
    CHECK(compare_tree(**mounted, folder / "tree", "lost+found").files == 601);
    // It is fragmented indeed: reading it takes many requests' pieces.
    const auto node = (*mounted)->open("/large");
    REQUIRE(node.has_value());
    std::vector<std::byte> to(700000);
    disk.requests = 0;
    CHECK((*mounted)->read(*node, 0, to) == to.size());
    CHECK(disk.requests > 300);
}

TEST_CASE("ext4: contiguous files are read in one request") {
    if (!have_tools({"mke2fs"}))
        return;
    TemporaryFolder folder;
    std::filesystem::create_directories(folder / "tree");
    run("head -c 20000000 /dev/urandom > " + (folder / "tree/kernel") + " && truncate -s 64M " +
        (folder / "image") + " && mke2fs -q -F -t ext4 -d " + (folder / "tree") + " " +
        (folder / "image"));
    FileReader disk(folder / "image");
    TestArena arena;
    const auto mounted = mount(disk, arena);
    REQUIRE(mounted.has_value());
    const auto node = (*mounted)->open("/kernel");
    REQUIRE(node.has_value());
    std::vector<std::byte> to(20000000);
    disk.requests = 0;
    CHECK((*mounted)->read(*node, 0, to) == to.size());
    CHECK(disk.requests <= 8);
    CHECK(disk.largest >= 4 << 20);
}

TEST_CASE("ext4: symbolic links are followed, and loops of them end") {
    if (!have_tools({"mke2fs"}))
        return;
    SmallExt4 image;
    CHECK(read_file(image.disk, "/link") == 8893U);
    CHECK(read_file(image.disk, "chain") == 8893U);
    CHECK(read_file(image.disk, "/dir/../dir/.././link") == 8893U);
    CHECK(read_file(image.disk, "/self").error().code == ErrorCode::Loop);
    CHECK(read_file(image.disk, "/dir/loop").error().code == ErrorCode::Loop);
    CHECK(read_file(image.disk, "/dir/missing").error().code == ErrorCode::NotFound);
    CHECK(read_file(image.disk, "/file/x").error().code == ErrorCode::NotDirectory);
    CHECK(read_file(image.disk, "/dir").error().code == ErrorCode::IsDirectory);
    CHECK(read_file(image.disk, std::string(5000, 'a')).error().code == ErrorCode::TooLarge);
}

TEST_CASE("ext4: incompatible features are refused by name") {
    if (!have_tools({"mke2fs"}))
        return;
    SmallExt4 image;
    const auto refusal = [&](std::uint32_t bit) -> std::string {
        image.disk.store(1024 + 0x60, bit);
        TestArena arena;
        const auto mounted = mount(image.disk, arena);
        REQUIRE(!mounted.has_value());
        CHECK(mounted.error().code == ErrorCode::Unsupported);
        return mounted.error().reason;
    };
    CHECK(refusal(0x1).find("compression") != std::string::npos);
    CHECK(refusal(0x8).find("journal device") != std::string::npos);
    CHECK(refusal(0x1000).find("dirdata") != std::string::npos);
    CHECK(refusal(0x80000000).find("not known") != std::string::npos);
}

TEST_CASE("ext4: damaged extent trees and directories are errors") {
    if (!have_tools({"mke2fs", "debugfs"}))
        return;
    SmallExt4 image;
    REQUIRE(read_file(image.disk, "/big") == 43893U);
    const std::size_t big = image.inode("/big") + 0x28;
    const std::size_t directory = image.inode("/dir") + 0x28;
    const auto block = image.disk.load<std::uint32_t>(directory + 12 + 8) * std::size_t{1024};
    auto expected = ErrorCode::Corrupt;
    std::string path = "/big";
    SUBCASE("a tree that is its own child") {
        // The root becomes an index of depth 1 whose child is a block that claims depth 1 again.
        image.disk.store<std::uint16_t>(big + 6, 1);
        image.disk.store<std::uint16_t>(big + 2, 1);
        image.disk.store<std::uint32_t>(big + 12, 0);
        image.disk.store<std::uint32_t>(big + 16, 900);
        image.disk.store<std::uint32_t>(big + 20, 0);
        std::copy_n(image.disk.bytes().begin() + static_cast<std::ptrdiff_t>(big), 24,
                    image.disk.bytes().begin() + 900 * 1024);
    }
    SUBCASE("too many entries") {
        image.disk.store<std::uint16_t>(big + 2, 0xffff);
    }
    SUBCASE("too deep") {
        image.disk.store<std::uint16_t>(big + 6, 0xffff);
    }
    SUBCASE("blocks outside the file system") {
        image.disk.store<std::uint32_t>(big + 12 + 8, 0xffffff00);
    }
    SUBCASE("an entry of no length") {
        path = "/dir/loop";
        image.disk.store<std::uint16_t>(block + 4, 0);
    }
    SUBCASE("an entry longer than its block") {
        path = "/dir/loop";
        image.disk.store<std::uint16_t>(block + 4, 2048);
    }
    SUBCASE("a name longer than its entry") {
        path = "/dir/loop";
        image.disk.store<std::uint8_t>(block + 6, 200);
    }
    SUBCASE("an entry that names no inode") {
        path = "/dir/loop";
        image.disk.store<std::uint32_t>(block + 24, 0xfffffff0);
    }
    SUBCASE("an absurd directory size") {
        path = "/dir/missing";
        image.disk.store<std::uint32_t>(image.inode("/dir") + 4, 0xffffffff);
        expected = ErrorCode::TooLarge;
    }
    SUBCASE("a directory in itself is only a path that goes on") {
        image.disk.store<std::uint32_t>(block + 24, image.disk.load<std::uint32_t>(block));
        image.disk.store<std::uint8_t>(block + 24 + 7, 2);
        path = "/dir/loop/loop/loop/loop/missing";
        expected = ErrorCode::NotFound;
    }
    const auto got = read_file(image.disk, path);
    REQUIRE(!got.has_value());
    CHECK_MESSAGE(got.error().code == expected, got.error().reason);
}

TEST_CASE("ext4: absurd superblocks are errors") {
    if (!have_tools({"mke2fs"}))
        return;
    SmallExt4 image;
    SUBCASE("block size") {
        image.disk.store<std::uint32_t>(1024 + 0x18, 31);
    }
    SUBCASE("inode size") {
        image.disk.store<std::uint16_t>(1024 + 0x58, 0xffff);
    }
    SUBCASE("no inodes a group") {
        image.disk.store<std::uint32_t>(1024 + 0x28, 0);
    }
    SUBCASE("no blocks a group") {
        image.disk.store<std::uint32_t>(1024 + 0x20, 0);
    }
    SUBCASE("block count") {
        image.disk.store<std::uint32_t>(1024 + 0x4, 0);
    }
    SUBCASE("descriptor size") {
        image.disk.store<std::uint16_t>(1024 + 0xfe, 0);
    }
    TestArena arena;
    const auto before = arena->left();
    const auto mounted = mount(image.disk, arena);
    REQUIRE(!mounted.has_value());
    CHECK(mounted.error().code == ErrorCode::Corrupt);
    CHECK(arena->left() == before);
}

TEST_CASE("ext4: an image that was cut off fails where it ends") {
    if (!have_tools({"mke2fs"}))
        return;
    SmallExt4 image;
    std::size_t failures = 0;
    for (std::size_t size = 4096; size < 1 << 20; size += 40960) {
        MemoryReader cut{{image.disk.bytes().begin(),
                          image.disk.bytes().begin() + static_cast<std::ptrdiff_t>(size)}};
        const auto got = read_file(cut, "/big");
        failures += got.has_value() ? 0 : 1;
        CHECK((got.has_value() || got.error().code == ErrorCode::Io));
    }
    CHECK(failures > 1);
}

}  // namespace masu::firmware::test
