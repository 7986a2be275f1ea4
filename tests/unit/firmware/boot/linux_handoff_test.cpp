#include "firmware/boot/linux_handoff.hpp"

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "firmware/bytes.hpp"
#include "tests/unit/firmware/boot/fake_file_system.hpp"

namespace masu::firmware::test {

namespace {

using Files = std::map<std::string, std::string>;

constexpr std::uint64_t mebibyte = 1 << 20;

template <class T>
void store(std::string& to, std::size_t offset, T value) {
    std::memcpy(to.data() + offset, &value, sizeof value);
}

// A bzImage: setup of 4 sectors, then a payload of 'P'.
std::string make_kernel(std::uint64_t preferred = 16 * mebibyte, std::uint32_t memory = 8 << 20) {
    std::string file(5 * 512, '\0');
    file += std::string(65536, 'P');
    store<std::uint8_t>(file, 0x1f1, 4);
    store<std::uint32_t>(file, 0x1f4, 65536 / 16);
    store<std::uint16_t>(file, 0x1fe, 0xaa55);
    file[0x201] = 0x66;
    std::memcpy(file.data() + 0x202, "HdrS", 4);
    store<std::uint16_t>(file, 0x206, 0x20f);
    store<std::uint32_t>(file, 0x22c, 0x7fffffff);
    store<std::uint32_t>(file, 0x230, 2 << 20);
    store<std::uint8_t>(file, 0x234, 1);
    store<std::uint16_t>(file, 0x236, 3);
    store<std::uint32_t>(file, 0x238, 2047);
    store<std::uint64_t>(file, 0x258, preferred);
    store<std::uint32_t>(file, 0x260, memory);
    return file;
}

Result<KernelHeader> parse(const std::string& file) {
    return parse_kernel(
        std::as_bytes(std::span(file)).first(std::min<std::size_t>(file.size(), kernel_head_size)),
        file.size());
}

class ArrayMemory final : public PhysicalMemory {
  public:
    [[nodiscard]] std::span<std::byte> at(std::uint64_t address,
                                          std::size_t size) noexcept override {
        REQUIRE(address + size <= bytes.size());
        return std::span(bytes).subspan(address, size);
    }
    std::vector<std::byte> bytes = std::vector<std::byte>(64 * mebibyte, std::byte{0xee});
};

const std::vector<MemoryRange> usual_map{
    {0, 0x9f000, MemoryKind::Free},
    {0x9f000, 0x61000, MemoryKind::Reserved},
    {mebibyte, 4 * mebibyte, MemoryKind::Firmware},
    {5 * mebibyte, 58 * mebibyte, MemoryKind::Free},
    {63 * mebibyte, 0x10000, MemoryKind::AcpiReclaim},
    {63 * mebibyte + 0x10000, mebibyte - 0x10000, MemoryKind::Firmware},
};

}  // namespace

TEST_CASE("a kernel and its initrds go where the boot protocol wants them") {
    FakeFileSystem fs(Files{{"k", make_kernel()}, {"a", std::string(5001, 'a')}, {"b", "bb"}});
    const BootDevice device{.fs = &fs};
    BootEntry entry{.kernel = {0, "/k"}, .command_line = "root=/dev/vda1 ro"};
    entry.initrds[0] = {0, "/a"};
    entry.initrds[1] = {0, "/b"};
    entry.initrd_count = 2;
    ArrayMemory memory;
    const auto plan = prepare_handoff({&device, 1}, entry, usual_map, 0x1234567890, memory);
    REQUIRE_MESSAGE(plan.has_value(), std::string(plan.error().view()));
    CHECK(plan->kernel_address == 16 * mebibyte);
    CHECK(memory.bytes[plan->kernel_address] == std::byte{'P'});
    CHECK(memory.bytes[plan->kernel_address + 65535] == std::byte{'P'});
    CHECK(plan->initrd_address % 4096 == 0);
    CHECK(plan->initrd_address + 4096 * 2 == 63 * mebibyte);
    CHECK(plan->initrd_size == 5004 + 4);
    CHECK(memory.bytes[plan->initrd_address + 5000] == std::byte{'a'});
    CHECK(memory.bytes[plan->initrd_address + 5001] == std::byte{0});
    CHECK(memory.bytes[plan->initrd_address + 5004] == std::byte{'b'});
    CHECK(memory.bytes[plan->initrd_address + 5006] == std::byte{0});
    const auto zero = memory.at(plan->parameters, 4096);
    CHECK(load_le<std::uint32_t>(zero, 0x202) == 0x53726448);
    CHECK(load_le<std::uint8_t>(zero, 0x210) == 0xff);
    CHECK(load_le<std::uint64_t>(zero, 0x70) == 0x1234567890);
    CHECK(load_le<std::uint32_t>(zero, 0x218) == plan->initrd_address);
    CHECK(load_le<std::uint32_t>(zero, 0x21c) == plan->initrd_size);
    const auto line = load_le<std::uint32_t>(zero, 0x228);
    CHECK(std::string(reinterpret_cast<const char*>(&memory.bytes[line])) == "root=/dev/vda1 ro");
    // What the firmware used is RAM for the kernel; neighbours of one kind are one entry.
    CHECK(load_le<std::uint8_t>(zero, 0x1e8) == 5);
    CHECK(load_le<std::uint64_t>(zero, 0x2d0 + 2 * 20) == mebibyte);
    CHECK(load_le<std::uint64_t>(zero, 0x2d0 + 2 * 20 + 8) == 62 * mebibyte);
    CHECK(load_le<std::uint32_t>(zero, 0x2d0 + 2 * 20 + 16) == 1);
    CHECK(load_le<std::uint32_t>(zero, 0x2d0 + 3 * 20 + 16) == 3);
}

TEST_CASE("a kernel whose place is taken moves, if it can") {
    const std::vector<MemoryRange> map{{0, 0x9f000, MemoryKind::Free},
                                       {mebibyte, 17 * mebibyte, MemoryKind::Firmware},
                                       {18 * mebibyte + 4096, 40 * mebibyte, MemoryKind::Free}};
    auto file = make_kernel();
    auto plan = plan_handoff(*parse(file), {}, "", map);
    REQUIRE(plan.has_value());
    CHECK(plan->kernel_address == 20 * mebibyte);
    store<std::uint8_t>(file, 0x234, 0);
    plan = plan_handoff(*parse(file), {}, "", map);
    REQUIRE(!plan.has_value());
    CHECK(plan.error().code == ErrorCode::NoMemory);
}

TEST_CASE("an initrd stays below the kernel's limit, or goes above 4 GiB when it must") {
    auto kernel = *parse(make_kernel());
    std::vector<MemoryRange> map{{0, 0x9f000, MemoryKind::Free},
                                 {mebibyte, 199 * mebibyte, MemoryKind::Free},
                                 {4096 * mebibyte, 1000 * mebibyte, MemoryKind::Free}};
    const std::uint64_t small[] = {10 * mebibyte};
    kernel.initrd_highest_byte = 100 * mebibyte - 1;
    CHECK(plan_handoff(kernel, small, "", map)->initrd_address == 90 * mebibyte);
    const std::uint64_t large[] = {300 * mebibyte};
    CHECK(plan_handoff(kernel, large, "", map)->initrd_address == 4096 * mebibyte);
    kernel.initrd_above_4g = false;
    CHECK(plan_handoff(kernel, large, "", map).error().code == ErrorCode::NoMemory);
    // Around the kernel, not over it.
    const std::uint64_t most[] = {150 * mebibyte};
    kernel.initrd_highest_byte = 0x7fffffff;
    CHECK(plan_handoff(kernel, most, "", map)->initrd_address == 50 * mebibyte);
    const std::uint64_t absurd[] = {~std::uint64_t{0}};
    CHECK(!plan_handoff(kernel, absurd, "", map).has_value());
    CHECK(plan_handoff(kernel, {}, std::string(2048, 'x'), map).error().code ==
          ErrorCode::TooLarge);
}

TEST_CASE("what is no 64-bit bzImage is refused") {
    CHECK(parse(std::string(4096, '\0')).error().code == ErrorCode::Unsupported);
    CHECK(parse("short").error().code == ErrorCode::Unsupported);
    auto file = make_kernel();
    CHECK(parse(file).has_value());
    CHECK(parse(file.substr(0, 30000)).error().code == ErrorCode::Corrupt);
    store<std::uint32_t>(file, 0x230, 3);
    CHECK(parse(file).error().code == ErrorCode::Corrupt);
    file = make_kernel(~std::uint64_t{0});
    CHECK(parse(file).error().code == ErrorCode::Corrupt);
    file = make_kernel();
    store<std::uint16_t>(file, 0x206, 0x205);
    CHECK(parse(file).error().code == ErrorCode::Unsupported);
    file = make_kernel();
    store<std::uint16_t>(file, 0x236, 0);
    CHECK(parse(file).error().code == ErrorCode::Unsupported);
}

TEST_CASE("a memory map of more ranges than the zero page holds is an error") {
    FakeFileSystem fs(Files{{"k", make_kernel()}});
    const BootDevice device{.fs = &fs};
    const BootEntry entry{.kernel = {0, "/k"}};
    auto map = usual_map;
    for (std::uint64_t i = 0; i < 200; ++i)
        map.push_back({(100 + i) * mebibyte, 4096, MemoryKind::Reserved});
    ArrayMemory memory;
    const auto plan = prepare_handoff({&device, 1}, entry, map, 0, memory);
    REQUIRE(!plan.has_value());
    CHECK(std::string(plan.error().view()).find("128 ranges") != std::string::npos);
}

}  // namespace masu::firmware::test
