#include "firmware/fs/xfs.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include <doctest/doctest.h>

#include "firmware/bytes.hpp"
#include "tests/unit/firmware/fs/file_reader.hpp"
#include "tests/unit/firmware/fs/memory_reader.hpp"
#include "tests/unit/firmware/fs/real_tree.hpp"

namespace masu::firmware::test {

namespace {

constexpr const char* uuid = "5c8d2e2f-6f0c-4f7e-9d2a-0123456789ab";

void make_image(const std::string& image, const std::string& options,
                const std::string& version5 = "-m uuid=5c8d2e2f-6f0c-4f7e-9d2a-0123456789ab") {
    run("truncate -s 400M " + image + " && mkfs.xfs -q -f -L label " + version5 + " " + options +
        " " + image);
}

// Appends to a prototype file of mkfs.xfs what `folder` holds.
void write_prototype(std::ostream& out, const std::filesystem::path& folder) {
    for (const auto& one : std::filesystem::directory_iterator(folder)) {
        const std::string name = one.path().filename();
        if (one.is_symlink()) {
            out << name << " l--755 0 0 " << std::filesystem::read_symlink(one).string() << "\n";
        } else if (one.is_directory()) {
            out << name << " d--755 0 0\n";
            write_prototype(out, one.path());
        } else {
            out << name << " ---644 0 0 " << one.path().string() << "\n";
        }
    }
    out << "$\n";
}

// Files whose extents alternate with holes: `islands` of them, each a block.
void write_islands(const std::string& path, int islands) {
    const int fd = ::open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    REQUIRE(fd >= 0);
    std::string block(4096, 'x');
    for (int i = 0; i < islands; ++i) {
        block[0] = static_cast<char>('a' + i % 26);
        REQUIRE(::pwrite(fd, block.data(), block.size(), off_t{i} * 8192) == 4096);
    }
    ::close(fd);
}

// Puts a tree on the image by mounting it, which not every machine allows.
bool fill_by_mounting(const TemporaryFolder& folder, const std::string& image) {
    std::filesystem::create_directory(folder / "mnt");
    const std::string mnt = folder / "mnt";
    if (::geteuid() != 0 || !try_run("mount -o loop " + image + " " + mnt + " 2>/dev/null")) {
        std::printf("skipped: this machine does not let us mount a file system\n");
        return false;
    }
    const bool copied = try_run("cp -a --sparse=always " + (folder / "tree") + "/. " + mnt +
                                " && truncate -s 20M " + mnt + "/preallocated && fallocate -l 1M " +
                                mnt + "/preallocated");
    run("umount " + mnt);
    REQUIRE(copied);
    run("truncate -s 20M " + (folder / "tree/preallocated"));
    return true;
}

void check_image(const std::string& options, const std::string& version5, const TreeShape& shape) {
    if (!have_tools({"mkfs.xfs", "mount"}))
        return;
    TemporaryFolder folder;
    std::filesystem::create_directory(folder / "tree");
    make_tree(folder / "tree", shape);
    write_islands(folder / "tree/islands", 1000);
    make_image(folder / "image", options, version5);
    if (!fill_by_mounting(folder, folder / "image"))
        return;
    FileReader disk(folder / "image");
    TestArena arena;
    const auto mounted = mount(disk, arena);
    REQUIRE(mounted.has_value());
    CHECK((*mounted)->type() == "xfs");
    CHECK((*mounted)->label() == "label");
    CHECK((*mounted)->uuid() == uuid);
    const auto compared = compare_tree(**mounted, folder / "tree");
    CHECK(compared.files == shape.files + shape.huge_directory + 6);
    CHECK(compared.links == 5);
}

}  // namespace

TEST_CASE("xfs as mkfs.xfs makes it from a list of files") {
    if (!have_tools({"mkfs.xfs"}))
        return;
    TemporaryFolder folder;
    std::filesystem::create_directories(folder / "tree/boot/grub");
    std::filesystem::create_directories(folder / "tree/many");
    std::filesystem::create_directories(folder / "tree/some");
    run("cd " + (folder / "tree") +
        " && head -c 5000000 /dev/urandom > boot/vmlinuz && seq 1 500 > boot/grub/grub.cfg && ln "
        "-s "
        "boot/vmlinuz vmlinuz && for i in $(seq 1 2000); do echo $i > many/file-number-$i; done; "
        "for i in $(seq 1 60); do echo $i > some/file-number-$i; done; touch empty");
    {
        std::ofstream prototype(folder / "prototype");
        prototype << "nothing\n0 0\nd--755 0 0\n";
        write_prototype(prototype, folder / "tree");
    }
    make_image(folder / "image", "-p " + (folder / "prototype"));
    FileReader disk(folder / "image");
    TestArena arena;
    const auto mounted = mount(disk, arena);
    REQUIRE(mounted.has_value());
    const auto compared = compare_tree(**mounted, folder / "tree");
    CHECK(compared.files == 2063);
    CHECK(compared.directories == 5);
    CHECK(compared.links == 1);
    const auto kernel = (*mounted)->open("/many/../vmlinuz");
    REQUIRE(kernel.has_value());
    std::vector<std::byte> to(5000000);
    disk.requests = 0;
    CHECK((*mounted)->read(*kernel, 0, to) == to.size());
    CHECK(disk.requests <= 8);
}

TEST_CASE("xfs as Debian makes it") {
    check_image("", "-m uuid=5c8d2e2f-6f0c-4f7e-9d2a-0123456789ab",
                {.files = 400, .huge_directory = 6000});
}
TEST_CASE("xfs with 1 KiB blocks and large directory blocks") {
    check_image("-b size=1024 -n size=8192", "-m uuid=5c8d2e2f-6f0c-4f7e-9d2a-0123456789ab", {});
}
TEST_CASE("xfs with 1 KiB blocks and small directory blocks") {
    check_image("-b size=1024 -i size=512", "-m uuid=5c8d2e2f-6f0c-4f7e-9d2a-0123456789ab",
                {.huge_directory = 2500});
}
TEST_CASE("xfs with 64-bit extent counts and large inodes") {
    check_image("-i size=2048,nrext64=1", "-m uuid=5c8d2e2f-6f0c-4f7e-9d2a-0123456789ab", {});
}
TEST_CASE("xfs of version 4") {
    check_image("", "-m crc=0,uuid=5c8d2e2f-6f0c-4f7e-9d2a-0123456789ab", {});
}

TEST_CASE("xfs: damage of any kind is an error") {
    if (!have_tools({"mkfs.xfs"}))
        return;
    TemporaryFolder folder;
    std::filesystem::create_directories(folder / "tree/many");
    run("cd " + (folder / "tree") +
        " && for i in $(seq 100 160); do echo $i > many/file-number-$i; done; head -c 9000 "
        "/dev/urandom > data");
    {
        std::ofstream prototype(folder / "prototype");
        prototype << "nothing\n0 0\nd--755 0 0\n";
        write_prototype(prototype, folder / "tree");
    }
    make_image(folder / "image", "-p " + (folder / "prototype"));
    FileReader disk(folder / "image");
    const auto read_file = [&](const char* path) -> Result<std::size_t> {
        TestArena arena;
        const auto fs = TRY(mount_xfs(disk, arena));
        const Node node = TRY(fs->open(path));
        std::vector<std::byte> to(16384);
        return fs->read(node, 0, to);
    };
    // Blocks are numbered by group and block in it, with a power of two of numbers for each group.
    const auto superblock = disk.load(0, 256);
    const auto place = [&](std::uint64_t number) {
        const auto bits = load_le<std::uint8_t>(superblock, 124);
        const std::uint64_t group = number >> bits;
        return (group * load_be<std::uint32_t>(superblock, 84) +
                (number & ((std::uint64_t{1} << bits) - 1))) *
               4096;
    };
    // An inode's number is its block's and three bits more.
    const auto inode = [&](const char* path) {
        TestArena arena;
        const auto fs = mount_xfs(disk, arena);
        REQUIRE(fs.has_value());
        const auto node = (*fs)->open(path);
        REQUIRE(node.has_value());
        return place(node->id >> 3) + (node->id & 7) * 512;
    };
    const auto store = [&]<class T>(std::uint64_t at, T value) {
        value = load_be<T>(std::as_bytes(std::span(&value, 1)), 0);
        disk.store(at, std::as_bytes(std::span(&value, 1)));
    };
    REQUIRE(read_file("/data") == 9000U);
    REQUIRE(read_file("/many/file-number-123") == 4U);
    const auto data = inode("/data");
    const auto many = inode("/many");
    REQUIRE(load_be<std::uint16_t>(disk.load(data, 2), 0) == 0x494e);
    // The directory's block: its extent's start, in the inode.
    const auto record = disk.load(many + 176, 16);
    const std::uint64_t block = place(load_be<std::uint64_t>(record, 8) >> 21);
    REQUIRE(load_be<std::uint32_t>(disk.load(block, 4), 0) == 0x58444233);  // XDB3
    const char* path = "/data";
    auto expected = ErrorCode::Corrupt;
    SUBCASE("an inode without its magic") {
        store(data, std::uint16_t{0});
    }
    SUBCASE("an extent outside the file system") {
        store(data + 176 + 8, ~std::uint64_t{0});
    }
    SUBCASE("more extents than fit") {
        store(data + 76, std::uint32_t{0x7fffffff});
    }
    SUBCASE("a tree whose root is its own child") {
        store(data + 5, std::uint8_t{3});
        store(data + 176, std::uint16_t{1});
        store(data + 178, std::uint16_t{1});
        store(data + 180, std::uint64_t{0});
        store(data + 180 + (336 - 4) / 16 * 8, data / 4096);
    }
    SUBCASE("a tree of absurd depth") {
        store(data + 5, std::uint8_t{3});
        store(data + 176, std::uint16_t{0xffff});
    }
    SUBCASE("an absurd size") {
        store(data + 56, ~std::uint64_t{0});
    }
    SUBCASE("the realtime device") {
        store(data + 90, std::uint16_t{1});
        expected = ErrorCode::Unsupported;
    }
    SUBCASE("a directory block of another kind") {
        store(block, std::uint32_t{0});
        path = "/many/file-number-123";
    }
    SUBCASE("unused space of no length") {
        store(block + 64, std::uint32_t{0xffff0000});
        path = "/many/file-number-123";
    }
    SUBCASE("an index larger than the block") {
        store(block + 4096 - 8, std::uint32_t{0xffffffff});
        path = "/many/file-number-123";
    }
    SUBCASE("an absurd directory size") {
        store(many + 56, ~std::uint64_t{0});
        path = "/many/missing";
        expected = ErrorCode::TooLarge;
    }
    SUBCASE("a file system that needs repair") {
        store(216, std::uint32_t{0x11});
        expected = ErrorCode::Unsupported;
    }
    SUBCASE("an unknown feature") {
        store(216, std::uint32_t{0x80000001});
        expected = ErrorCode::Unsupported;
    }
    SUBCASE("an absurd block size") {
        store(4, std::uint32_t{0x80000000});
    }
    SUBCASE("no allocation groups") {
        store(88, std::uint32_t{0});
    }
    const auto got = read_file(path);
    REQUIRE(!got.has_value());
    CHECK_MESSAGE(got.error().code == expected, got.error().reason);
}

}  // namespace masu::firmware::test
