#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "firmware/efi/device_path.hpp"

using namespace masu::firmware::efi;

namespace {

class Path {
  public:
    template <class Node>
    Path& add(const Node& node) {
        const auto* bytes = reinterpret_cast<const std::byte*>(&node);
        bytes_.insert(bytes_.end(), bytes, bytes + sizeof node);
        return *this;
    }
    Path& file(std::u16string_view name) {
        const auto size = static_cast<std::uint8_t>(sizeof(DevicePath) + name.size() * 2 + 2);
        add(DevicePath{type_media, media_file_path, {size, 0}});
        for (const char16_t c : name)
            add(c);
        return add(char16_t{0});
    }
    const DevicePath* get() {
        add(EndNode{});
        return reinterpret_cast<const DevicePath*>(bytes_.data());
    }

  private:
    std::vector<std::byte> bytes_;
};

std::u16string text(const DevicePath* path) {
    std::u16string result(path_to_text(path, {}), u'?');
    CHECK(path_to_text(path, result) == result.size());
    return result;
}

HardDriveNode gpt_partition() {
    HardDriveNode node;
    node.number = 15;
    node.start = 2048;
    node.size = 0x3e000;
    node.format = 2;
    node.signature_type = 2;
    for (std::uint8_t i = 0; i < 16; ++i)
        node.signature[i] = i;
    return node;
}

}  // namespace

TEST_CASE("paths are written as the specification writes them") {
    Path path;
    path.add(AcpiNode{}).add(PciNode{.function = 1, .device = 10}).add(gpt_partition());
    path.file(u"\\EFI\\BOOT\\BOOTX64.EFI");
    CHECK(text(path.get()) ==
          u"PciRoot(0x0)/Pci(0xA,0x1)/HD(15,GPT,03020100-0504-0706-0809-0A0B0C0D0E0F,0x800,0x3E000)"
          u"/\\EFI\\BOOT\\BOOTX64.EFI");
    HardDriveNode mbr;
    mbr.number = 1;
    mbr.format = mbr.signature_type = 1;
    mbr.signature[0] = 0xef;
    Path second;
    CHECK(text(second.add(mbr).get()) == u"HD(1,MBR,0xEF,0x0,0x0)");
    Path uart;
    CHECK(text(uart.add(AcpiNode{.hid = 0x0501'41d0}).add(UartNode{}).get()) ==
          u"Acpi(0x50141D0,0x0)/Uart(115200,8,N,1)");
    struct {
        DevicePath head{9, 8, {6, 0}};
        std::uint8_t data[2] = {0xab, 0xcd};
    } strange;
    Path unknown;
    CHECK(text(unknown.add(strange).get()) == u"Path(9,8,ABCD)");
}

TEST_CASE("text stops at the end of its room and tells what it needs") {
    Path path;
    const auto* whole = path.add(AcpiNode{}).get();
    char16_t room[4] = {};
    CHECK(path_to_text(whole, std::span(room, 3)) == 12);
    CHECK(room[2] == u'i');
    CHECK(room[3] == 0);
}

TEST_CASE("a head of a path ends where a node ends") {
    Path disk;
    Path partition;
    Path other;
    const auto* head = disk.add(AcpiNode{}).add(PciNode{.device = 1}).get();
    const auto* path =
        partition.add(AcpiNode{}).add(PciNode{.device = 1}).add(gpt_partition()).get();
    const auto* stranger = other.add(AcpiNode{}).add(PciNode{.device = 2}).get();
    CHECK(head_length(head, path) == 18);
    CHECK(head_length(path, path) == 60);
    CHECK_FALSE(head_length(path, head));
    CHECK_FALSE(head_length(stranger, path));
    CHECK(same_path(path, path));
    CHECK_FALSE(same_path(head, path));
}

TEST_CASE("broken paths have no length") {
    Path none;
    CHECK(path_length(none.get()) == 0);
    Path short_node;
    CHECK_FALSE(path_length(short_node.add(DevicePath{1, 1, {3, 0}}).get()));
    Path zero;
    CHECK_FALSE(path_length(zero.add(DevicePath{1, 1, {0, 0}}).get()));
    Path long_one;
    CHECK_FALSE(path_length(long_one.add(AcpiNode{}).get(), 14));
    Path too_long;
    CHECK_FALSE(path_length(too_long.add(DevicePath{1, 1, {0xff, 0xff}}).get()));
    CHECK(path_to_text(too_long.get(), {}) == 0);
}

TEST_CASE("names of file nodes are joined") {
    char16_t name[64];
    Path two;
    REQUIRE(file_name_of(two.file(u"\\EFI").file(u"BOOT\\X.EFI").get(), name));
    CHECK(std::u16string(name) == u"\\EFI\\BOOT\\X.EFI");
    Path other;
    CHECK_FALSE(file_name_of(other.file(u"a").add(AcpiNode{}).get(), name));
    Path empty;
    CHECK_FALSE(file_name_of(empty.get(), name));
    Path tight;
    CHECK_FALSE(file_name_of(tight.file(u"12345678").get(), std::span(name, 8)));
}
