// A file system of a few files made of a fuzzer's bytes, for boot configurations.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

#include "firmware/boot/boot_entry.hpp"
#include "firmware/fs/file_system.hpp"
#include "tests/fuzz/input.hpp"

namespace masu::fuzz {

// Every path but those that begin with "/no" leads to a file or folder: names ending with "entries"
// are folders of two entries, the rest files that hold one of the texts.
class BootFileSystem final : public firmware::FileSystem {
  public:
    BootFileSystem(std::string_view first, std::string_view second)
        : texts_{first, second, "kernel"} {}
    [[nodiscard]] std::string_view type() const noexcept override { return "fuzz"; }
    [[nodiscard]] std::string_view uuid() const noexcept override { return "1234-abcd"; }
    [[nodiscard]] std::string_view label() const noexcept override { return "ROOT"; }
    [[nodiscard]] std::uint64_t total_bytes() const noexcept override { return 0; }
    [[nodiscard]] std::uint32_t block_size() const noexcept override { return 512; }
    [[nodiscard]] firmware::Node root() const noexcept override { return {.id = folder}; }
    [[nodiscard]] firmware::Result<firmware::FileInfo> stat(
        const firmware::Node& node) noexcept override {
        if (node.id >= folder)
            return firmware::FileInfo{.type = firmware::FileType::Directory};
        return firmware::FileInfo{.type = firmware::FileType::Regular,
                                  .size = texts_[node.id].size()};
    }
    [[nodiscard]] firmware::Result<std::size_t> read(const firmware::Node& file,
                                                     std::uint64_t offset,
                                                     std::span<std::byte> to) noexcept override {
        const auto text = texts_[file.id];
        const std::size_t size = std::min(to.size(), text.size() - offset);
        std::memcpy(to.data(), text.data() + offset, size);
        return size;
    }
    [[nodiscard]] firmware::Result<bool> next(const firmware::Node&, std::uint64_t& cursor,
                                              firmware::DirectoryEntry& entry) noexcept override {
        constexpr std::array<std::string_view, 2> names{"one+3-1.conf", "two.conf"};
        if (cursor >= names.size())
            return false;
        const auto name = names[cursor];
        std::memcpy(entry.name_bytes.data(), name.data(), name.size());
        entry.name_size = name.size();
        entry.node = {.id = cursor++};
        return true;
    }
    [[nodiscard]] firmware::Result<firmware::Node> lookup(const firmware::Node&,
                                                          std::string_view name) noexcept override {
        if (name.starts_with("no"))
            return firmware::fail(firmware::ErrorCode::NotFound, "there is no such file");
        if (name.ends_with("entries") || name == "boot" || name == "loader" || name == "grub" ||
            name == "grub2")
            return firmware::Node{.id = folder};
        return firmware::Node{.id = name.starts_with("vm") ? 2U : name.size() % 2};
    }
    [[nodiscard]] firmware::Result<std::size_t> read_link(const firmware::Node&,
                                                          std::span<char>) noexcept override {
        return firmware::fail(firmware::ErrorCode::Invalid, "it is no symbolic link");
    }

  private:
    static constexpr std::uint64_t folder = 3;
    std::array<std::string_view, 3> texts_;
};

// Two texts of one input: what is before and behind its first NUL.
inline std::array<std::string_view, 2> two_texts(const std::uint8_t* data, std::size_t size) {
    const std::string_view all(reinterpret_cast<const char*>(data), size);
    const auto first = all.substr(0, all.find('\0'));
    return {first, all.substr(std::min(size, first.size() + 1))};
}

inline void check_menu(const firmware::BootMenu& menu) {
    require(!menu.entries.empty() && menu.chosen < menu.entries.size());
    for (const auto& entry : menu.entries) {
        require(entry.initrd_count <= entry.initrds.size());
        require(entry.problem != nullptr || !entry.kernel.path.empty());
    }
}

}  // namespace masu::fuzz
