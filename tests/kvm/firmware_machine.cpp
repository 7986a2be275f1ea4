#include "tests/kvm/firmware_machine.hpp"

#include <doctest/doctest.h>

#include <unistd.h>
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/unit/firmware/fs/memory_reader.hpp"

namespace masu::test {

DiskFile::DiskFile(const std::string& from, std::size_t size) {
    const Fd fd(::mkstemp(path_.data()));
    REQUIRE(fd);
    if (!from.empty())
        std::filesystem::copy_file(from, path_, std::filesystem::copy_options::overwrite_existing);
    else
        std::filesystem::resize_file(path_, size);
}

DiskFile::~DiskFile() {
    ::unlink(path_.c_str());
}

void DiskFile::write(std::span<const std::byte> all) const {
    std::ofstream out(path_, std::ios::binary);
    out.write(reinterpret_cast<const char*>(all.data()), static_cast<std::streamsize>(all.size()));
    REQUIRE(out.flush());
}

void DiskFile::overwrite(std::string_view what, std::string_view with) const {
    auto disk = firmware::test::MemoryReader::of_file(path_);
    auto& all = disk.bytes();
    const std::string_view text(reinterpret_cast<const char*>(all.data()), all.size());
    const auto at = text.find(what);
    REQUIRE(at != std::string_view::npos);
    std::ranges::copy(std::as_bytes(std::span(with)),
                      all.begin() + static_cast<std::ptrdiff_t>(at));
    write(all);
}

namespace {

VmConfig config_of(const Input& input) {
    VmConfig config;
    config.machine.mem_size_mib = input.memory_mib;
    BootSource source;
    source.firmware = true;
    source.boot_menu = input.boot_menu;
    source.boot_device = input.boot_device;
    if (!input.load_options.empty())
        source.boot_args = input.load_options;
    config.boot_source = source;
    for (const auto& path : input.disks) {
        DriveConfig drive;
        drive.drive_id = "disk" + std::to_string(config.drives.size());
        drive.path_on_host = path;
        config.drives.push_back(drive);
    }
    config.entropy = EntropyConfig{};
    return config;
}

}  // namespace

Ended run_guest(const Input& input) {
    return run_machine(config_of(input), 180'000'000'000, input.typing);
}

}  // namespace masu::test
