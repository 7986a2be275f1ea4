#include "firmware/fs/partitions.hpp"

#include <string>
#include <string_view>

#include <doctest/doctest.h>

#include "firmware/bytes.hpp"
#include "firmware/crc32.hpp"
#include "tests/unit/firmware/fs/memory_reader.hpp"
#include "tests/unit/firmware/fs/real_tree.hpp"

namespace masu::firmware::test {

namespace {

// A disk that sfdisk partitioned by `script`.
MemoryReader partitioned(const std::string& size, const std::string& script) {
    TemporaryFolder folder;
    const std::string image = folder / "image";
    run("truncate -s " + size + " " + image + " && sfdisk -q " + image + " <<'END'\n" + script +
        "\nEND");
    return MemoryReader::of_file(image);
}

constexpr const char* three_partitions =
    "label: gpt\nlabel-id: 5C8D2E2F-0000-4000-8000-1234567890AB\n"
    "size=2M, type=21686148-6449-6E6F-744E-656564454649\n"
    "size=8M, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=\"EFI ☂\", "
    "uuid=0FC63DAF-1111-4772-8E79-3D69D8477DE4\n"
    "type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, attrs=LegacyBIOSBootable";

}  // namespace

TEST_CASE("GPT: what sfdisk wrote is read") {
    if (!have_tools({"sfdisk"}))
        return;
    auto disk = partitioned("32M", three_partitions);
    TestArena arena;
    const auto table = read_partitions(disk, arena);
    REQUIRE(table.has_value());
    CHECK(table->scheme == Scheme::Gpt);
    CHECK(table->warning == nullptr);
    CHECK(std::string(to_text(table->disk_guid).data()) == "5c8d2e2f-0000-4000-8000-1234567890ab");
    REQUIRE(table->partitions.size() == 3);
    const auto& esp = table->partitions[1];
    CHECK(table->partitions[0].type == partition_type::bios_boot);
    CHECK(is_esp(esp));
    CHECK(esp.number == 2);
    CHECK(esp.first_lba == 2048 + 4096);
    CHECK(esp.block_count == 16384);
    CHECK(esp.rejected == nullptr);
    CHECK(!esp.active);
    CHECK(std::string(esp.name.data()) == "EFI ☂");
    CHECK(std::string(to_text(esp.unique).data()) == "0fc63daf-1111-4772-8e79-3d69d8477de4");
    CHECK(table->partitions[2].type == partition_type::linux_root);
    CHECK(table->partitions[2].active);
}

TEST_CASE("GPT: the backup serves when the primary is damaged, and both damaged is an error") {
    if (!have_tools({"sfdisk"}))
        return;
    auto disk = partitioned("32M", three_partitions);
    SUBCASE("header") {
        disk.store<std::uint8_t>(512 + 40, 99);
    }
    SUBCASE("entries") {
        disk.store<std::uint8_t>(1024 + 200, 99);
    }
    TestArena arena;
    const auto table = read_partitions(disk, arena);
    REQUIRE(table.has_value());
    CHECK(table->warning != nullptr);
    CHECK(table->partitions.size() == 3);
    disk.store<std::uint8_t>(disk.bytes().size() - 512 + 40, 99);
    const auto none = read_partitions(disk, arena);
    REQUIRE(!none.has_value());
    CHECK(none.error().code == ErrorCode::Corrupt);
    CHECK(std::string(none.error().reason).find("checksum") != std::string::npos);
}

TEST_CASE("GPT: a disk that was made larger still has its primary") {
    if (!have_tools({"sfdisk"}))
        return;
    auto disk = partitioned("32M", three_partitions);
    disk.bytes().resize(64 << 20);
    TestArena arena;
    const auto table = read_partitions(disk, arena);
    REQUIRE(table.has_value());
    CHECK(table->warning == nullptr);
    CHECK(table->partitions.size() == 3);
}

TEST_CASE("GPT: overlapping and absurd entries are rejected, with the reason") {
    if (!have_tools({"sfdisk"}))
        return;
    auto disk = partitioned("32M", three_partitions);
    const auto rejected = [&](std::size_t index) -> std::string {
        seal_gpt(disk);
        TestArena arena;
        const auto table = read_partitions(disk, arena);
        REQUIRE(table.has_value());
        CHECK(table->warning == nullptr);
        const auto* reason = table->partitions[index].rejected;
        return reason == nullptr ? "" : reason;
    };
    const std::size_t second = 1024 + 128;
    SUBCASE("overlap") {
        disk.store<std::uint64_t>(second + 32, 2050);
        CHECK(rejected(0).find("overlaps") != std::string::npos);
        CHECK(rejected(1).find("overlaps") != std::string::npos);
        CHECK(rejected(2).empty());
    }
    SUBCASE("backwards") {
        disk.store<std::uint64_t>(second + 40, 2050);
        CHECK(rejected(1).find("before") != std::string::npos);
        CHECK(rejected(0).empty());
    }
    SUBCASE("outside what is usable") {
        disk.store<std::uint64_t>(second + 40, ~std::uint64_t{0});
        CHECK(rejected(1).find("usable") != std::string::npos);
        CHECK(rejected(0).empty());
    }
    SUBCASE("beyond the disk") {
        disk.bytes().resize(4 << 20);
        CHECK(rejected(1).find("end of the disk") != std::string::npos);
    }
}

TEST_CASE("GPT: absurd headers are errors") {
    if (!have_tools({"sfdisk"}))
        return;
    auto disk = partitioned("32M", three_partitions);
    disk.store<std::uint64_t>(disk.bytes().size() - 512, 0);
    SUBCASE("entry size 0") {
        disk.store<std::uint32_t>(512 + 84, 0);
    }
    SUBCASE("entry size that is no power of two") {
        disk.store<std::uint32_t>(512 + 84, 192);
    }
    SUBCASE("4 billion entries") {
        disk.store<std::uint32_t>(512 + 80, 0xffffffff);
    }
    SUBCASE("entries beyond the end") {
        disk.store<std::uint64_t>(512 + 72, ~std::uint64_t{0} - 5);
    }
    SUBCASE("another place") {
        disk.store<std::uint64_t>(512 + 24, 7);
    }
    seal_gpt(disk);
    TestArena arena;
    CHECK(!read_partitions(disk, arena).has_value());
}

TEST_CASE("MBR: primary and logical partitions") {
    if (!have_tools({"sfdisk"}))
        return;
    auto disk = partitioned("64M",
                            "label: dos\nlabel-id: 0xcafe1234\nsize=8M, type=ef\n"
                            "size=8M, type=83, bootable\nsize=40M, type=5\n"
                            "5 : size=8M, type=83\n6 : size=8M, type=83\n7 : size=4M, type=82");
    TestArena arena;
    auto table = read_partitions(disk, arena);
    REQUIRE(table.has_value());
    CHECK(table->scheme == Scheme::Mbr);
    CHECK(table->mbr_signature == 0xcafe1234);
    REQUIRE(table->partitions.size() == 5);
    CHECK(is_esp(table->partitions[0]));
    CHECK(table->partitions[1].active);
    CHECK(table->partitions[1].block_count == 16384);
    CHECK(table->partitions[2].number == 5);
    CHECK(table->partitions[4].number == 7);
    CHECK(table->partitions[4].mbr_type == 0x82);
    for (const auto& partition : table->partitions)
        CHECK(partition.rejected == nullptr);

    // The last record points back at the first: what comes before it stays.
    const std::size_t extended = disk.load<std::uint32_t>(446 + 2 * 16 + 8) * std::size_t{512};
    const std::uint32_t second = disk.load<std::uint32_t>(extended + 446 + 16 + 8);
    const std::size_t record = extended + second * std::size_t{512};
    disk.store<std::uint32_t>(record + 446 + 16 + 8, second);
    table = read_partitions(disk, arena);
    REQUIRE(table.has_value());
    CHECK(table->partitions.size() == 4);
    CHECK(std::string(table->warning).find("turns back") != std::string::npos);
}

TEST_CASE("MBR: overlapping and absurd entries are rejected, with the reason") {
    MemoryReader disk{std::vector<std::byte>(1 << 20)};
    disk.store<std::uint16_t>(510, 0xaa55);
    const auto entry = [&](std::size_t index, std::uint32_t first, std::uint32_t count) {
        disk.store<std::uint8_t>(446 + index * 16 + 4, 0x83);
        disk.store(446 + index * 16 + 8, first);
        disk.store(446 + index * 16 + 12, count);
    };
    entry(0, 100, 100);
    entry(1, 150, 10);
    entry(2, 1000, 0xffffffff);
    entry(3, 0, 50);
    TestArena arena;
    const auto table = read_partitions(disk, arena);
    REQUIRE(table.has_value());
    REQUIRE(table->partitions.size() == 4);
    CHECK(table->partitions[0].rejected == std::string_view("it overlaps another partition"));
    CHECK(table->partitions[1].rejected == std::string_view("it overlaps another partition"));
    CHECK(table->partitions[2].rejected ==
          std::string_view("it reaches beyond the end of the disk"));
    CHECK(table->partitions[3].rejected == std::string_view("it starts on the partition table"));
}

TEST_CASE("A disk without a partition table is none, not an error") {
    TestArena arena;
    MemoryReader empty{{}};
    CHECK(read_partitions(empty, arena)->scheme == Scheme::None);
    MemoryReader zeros{std::vector<std::byte>(4096)};
    CHECK(read_partitions(zeros, arena)->scheme == Scheme::None);
    if (!have_tools({"mkfs.fat"}))
        return;
    TemporaryFolder folder;
    const std::string image = folder / "image";
    run("truncate -s 2M " + image + " && mkfs.fat " + image);
    auto fat = MemoryReader::of_file(image);
    CHECK(read_partitions(fat, arena)->scheme == Scheme::None);
    zeros.broken = 0;
    CHECK(read_partitions(zeros, arena).error().code == ErrorCode::Io);
}

TEST_CASE("A partition's reader stays inside the partition") {
    MemoryReader disk{std::vector<std::byte>(64 * 512)};
    disk.store<std::uint32_t>(10 * 512, 0x12345678);
    PartitionReader part(disk, 10, 5);
    std::array<std::byte, 512> block{};
    REQUIRE(part.read(0, block).has_value());
    CHECK(load_le<std::uint32_t>(block, 0) == 0x12345678);
    CHECK(!part.read(5, block).has_value());
    CHECK(!part.read(~std::uint64_t{0}, block).has_value());
    const BlockRead reads[] = {{4, block}, {5, block}};
    CHECK(part.read_many(std::span(reads).first(1)).has_value());
    CHECK(!part.read_many(reads).has_value());
}

}  // namespace masu::firmware::test
