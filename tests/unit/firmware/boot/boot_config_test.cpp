#include <algorithm>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "firmware/boot/bls.hpp"
#include "firmware/boot/boot_entry.hpp"
#include "firmware/boot/find_boot.hpp"
#include "firmware/boot/version.hpp"
#include "tests/unit/firmware/boot/fake_file_system.hpp"
#include "tests/unit/firmware/fs/memory_reader.hpp"

namespace masu::firmware::test {

namespace {

using Files = std::map<std::string, std::string>;

std::string initrds(const BootEntry& entry) {
    std::string all;
    for (std::size_t i = 0; i < entry.initrd_count; ++i)
        all += (i == 0 ? "" : " ") + std::string(entry.initrds[i].path);
    return all;
}

}  // namespace

TEST_CASE("versions compare as the specification's examples say") {
    // Ascending.
    const std::vector<std::string> order{"~",       "",        "122.1",  "123~rc1-1", "123",
                                         "123-a",   "123-a.1", "123-1",  "123-1.1",   "123^post1",
                                         "123.a-1", "123.1-1", "123a-1", "124-1"};
    for (std::size_t i = 0; i < order.size(); ++i)
        for (std::size_t j = 0; j < order.size(); ++j) {
            INFO(order[i] << " and " << order[j]);
            const int result = compare_versions(order[i], order[j]);
            CHECK((i < j ? result < 0 : i > j ? result > 0 : result == 0));
        }
    CHECK(compare_versions("5.14.0-362.el9", "5.14.0-70.el9") > 0);
    CHECK(compare_versions("1.01", "1.1") == 0);
    CHECK(compare_versions("1_2", "1+2") == 0);
    CHECK(compare_versions(std::string(1000, '9'), std::string(999, '9')) > 0);
}

TEST_CASE("BLS: entries are sorted, and the first that works is chosen") {
    FakeFileSystem fs(Files{
        {"linux", "k"},
        {"i1", "i"},
        {"i2", "i"},
        {"loader/entries/debian-6.1.conf",
         "title Debian\nsort-key debian\nmachine-id m\nversion 6.1\nlinux /linux\ninitrd /i1\n"
         "initrd /i2\noptions root=/dev/vda1\noptions quiet\n# comment\n"},
        {"loader/entries/debian-6.12.conf",
         "title Debian new\nsort-key debian\nmachine-id m\nversion 6.12\nlinux /linux\n"},
        {"loader/entries/arm.conf",
         "title Arm\nsort-key a\nversion 9\nlinux /linux\narchitecture aa64\n"},
        {"loader/entries/tried+0-3.conf", "sort-key a\nversion 10\nlinux /linux\n"},
        {"loader/entries/old.conf", "version 99\nlinux /linux\n"},
        {"loader/entries/README", "no entry"},
    });
    const BootDevice device{.fs = &fs};
    TestArena arena;
    const auto menu = read_bls_entries({&device, 1}, {0, "/loader/entries"}, arena);
    REQUIRE(menu.has_value());
    std::vector<std::string> ids;
    for (const auto& entry : menu->entries)
        ids.emplace_back(entry.id);
    CHECK(ids == std::vector<std::string>{"arm", "debian-6.12", "debian-6.1", "old", "tried"});
    CHECK(menu->entries[menu->chosen].id == "debian-6.12");
    CHECK(menu->entries[0].problem != nullptr);
    CHECK(menu->entries[2].command_line == "root=/dev/vda1 quiet");
    CHECK(initrds(menu->entries[2]) == "/i1 /i2");
    CHECK(menu->entries[4].title == "tried");
}

TEST_CASE("BLS: the default of loader.conf is a pattern; Fedora's saved entry comes before it") {
    Files files{
        {"linux", "k"},
        {"loader/loader.conf", "timeout 3\ndefault deb*-[0-5].1\n"},
        {"loader/entries/debian-6.1.conf", "linux /linux\noptions $kernelopts a $tuned_params\n"},
        {"loader/entries/debian-5.1.conf", "linux /linux\noptions ${kernelopts}b\n"}};
    const auto chosen = [&] {
        FakeFileSystem fs(files);
        const BootDevice device{.fs = &fs};
        TestArena arena;
        const auto menu = read_bls_entries({&device, 1}, {0, "/loader/entries"}, arena);
        REQUIRE(menu.has_value());
        const auto& entry = menu->entries[menu->chosen];
        return std::string(entry.id) + ": " + std::string(entry.command_line) +
               (entry.problem == nullptr ? "" : " !");
    };
    CHECK(chosen() == "debian-5.1: b !");  // kernelopts has no value
    files["grub2/grubenv"] = "# GRUB Environment Block\nkernelopts=root=/dev/x \n###";
    CHECK(chosen() == "debian-5.1: root=/dev/x b");
    files["grub2/grubenv"] =
        "# GRUB Environment Block\nkernelopts=root=/dev/x \nsaved_entry=debian-6.1\n###";
    CHECK(chosen() == "debian-6.1: root=/dev/x  a ");
}

TEST_CASE("extlinux.conf: labels, paths, append lines and the default") {
    FakeFileSystem fs(
        Files{{"boot/extlinux/extlinux.conf",
               "# comment\nDEFAULT menu.c32\nPROMPT 0\nTIMEOUT 50\nAPPEND global\n"
               "MENU TITLE x\nLABEL memtest\n  KERNEL memtest.bin\n"
               "label live\n  MENU LABEL Live system\n  menu default\n  kernel /vmlinuz\n"
               "  append root=/dev/vda1 initrd=/a,b quiet\n"
               "LABEL plain\n LINUX ../vmlinuz-2\n INITRD /a\n APPEND -\n"
               "LABEL inherits\n LINUX /vmlinuz\nINCLUDE more.conf\n"},
              {"boot/extlinux/more.conf", "LABEL more\nLINUX /gone\nINCLUDE more.conf\n"},
              {"boot/extlinux/b", "i"},
              {"vmlinuz", "k"},
              {"a", "i"}});
    const BootDevice device{.fs = &fs};
    TestArena arena;
    const auto menu =
        read_extlinux_config({&device, 1}, {0, "/boot/extlinux/extlinux.conf"}, arena);
    REQUIRE(menu.has_value());
    REQUIRE(menu->entries.size() >= 5);
    const auto& chosen = menu->entries[menu->chosen];
    CHECK(chosen.id == "live");
    CHECK(chosen.title == "Live system");
    CHECK(chosen.problem == nullptr);
    CHECK(chosen.command_line == "root=/dev/vda1 initrd=/a,b quiet");
    CHECK(initrds(chosen) == "/a /boot/extlinux/b");
    CHECK(menu->entries[0].problem != nullptr);
    CHECK(menu->entries[2].kernel.path == "/boot/extlinux/../vmlinuz-2");
    CHECK(menu->entries[2].command_line.empty());
    CHECK(menu->entries[3].command_line == "global");
    CHECK(menu->entries[4].problem == std::string_view("the kernel cannot be opened"));
    CHECK(menu->timeout == 5);
}

TEST_CASE("find_boot: BLS before grub.cfg before extlinux, disk by disk, past what does not work") {
    const Files extlinux{{"extlinux/extlinux.conf", "LABEL e\nLINUX /k\n"}, {"k", "k"}};
    Files grub = extlinux;
    grub["boot/grub/grub.cfg"] = "menuentry g { linux /k; }\n";
    Files bls = grub;
    bls["loader/entries/b.conf"] = "linux /k\n";
    Files broken = grub;
    broken["loader/entries/b.conf"] = "linux /k\noptions $kernelopts\n";
    FakeFileSystem empty(Files{{"x", ""}}), e(extlinux), g(grub), b(bls), half(broken);
    const auto found = [](std::vector<BootDevice> devices,
                          std::optional<std::uint32_t> only = std::nullopt) -> std::string {
        TestArena arena;
        const auto menu = find_boot(devices, only, arena);
        if (!menu)
            return std::string(menu.error().view());
        const auto& entry = menu->entries[menu->chosen];
        return std::to_string(menu->config.device) +
               std::string(entry.id.empty() ? entry.title : entry.id);
    };
    CHECK(found({{.fs = &empty}, {.fs = &e, .partition = 2}}) == "1e");
    CHECK(found({{.fs = &e, .partition = 1}, {.fs = &g, .partition = 2}}) == "1g");
    CHECK(found({{.fs = &g, .partition = 1}, {.fs = &b, .partition = 2}}) == "1b");
    CHECK(found({{.fs = &half}}) == "0g");
    CHECK(found({{.fs = &e, .disk = 0}, {.fs = &b, .disk = 1}}) == "0e");
    CHECK(found({{.fs = &e, .disk = 0}, {.fs = &b, .disk = 1}}, 1) == "1b");
    CHECK(found({{.fs = &g, .partition = 1}, {.fs = &g, .partition = 2, .preferred = true}}) ==
          "1g");
    const auto nothing = found({{.fs = &empty, .disk = 0, .partition = 3}});
    CHECK(nothing.find("/boot/grub/grub.cfg") != std::string::npos);
    CHECK(nothing.find("disk 1 partition 3") != std::string::npos);
    FakeFileSystem stale(Files{{"boot/grub/grub.cfg", "menuentry g { linux /gone; }\n"}});
    const auto why = found({{.fs = &stale, .disk = 2, .partition = 1}});
    CHECK(why ==
          "/boot/grub/grub.cfg on disk 3 partition 1 (fake): entry \"g\": the kernel cannot "
          "be opened: /gone");
    CHECK(found({}).find("no file system") != std::string::npos);
}

}  // namespace masu::firmware::test
