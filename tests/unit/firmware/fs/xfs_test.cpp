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

}  // namespace masu::firmware::test
