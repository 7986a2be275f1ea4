// Does with a mounted file system what firmware does, a bounded number of times.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "firmware/fs/file_system.hpp"
#include "tests/fuzz/input.hpp"

namespace masu::fuzz {

class Walk {
  public:
    explicit Walk(firmware::FileSystem& fs) : fs_(fs) {}

    void everything() {
        (void)fs_.open("/boot/grub/../grub/grub.cfg");
        (void)fs_.open("link/x");
        directory(fs_.root(), 0);
    }

  private:
    void directory(const firmware::Node& node, int depth) {
        auto entry = std::make_unique<firmware::DirectoryEntry>();
        std::uint64_t cursor = 0;
        for (int i = 0; i < 25 && left_ > 0; ++i) {
            const auto more = fs_.next(node, cursor, *entry);
            if (!more || !*more)
                return;
            --left_;
            require(entry->name_size <= entry->name_bytes.size());
            (void)fs_.lookup(node, entry->name());
            member(entry->node, depth);
        }
        // Any cursor is safe.
        for (std::uint64_t any : {cursor + 1, cursor ^ 0x55, ~std::uint64_t{0}, std::uint64_t{13}})
            (void)fs_.next(node, any, *entry);
    }

    void member(const firmware::Node& node, int depth) {
        const auto info = fs_.stat(node);
        if (!info)
            return;
        if (info->type == firmware::FileType::Directory && depth < 4)
            directory(node, depth + 1);
        std::array<char, 300> target;
        if (info->type == firmware::FileType::SymbolicLink)
            (void)fs_.read_link(node, target);
        for (const std::uint64_t offset : {std::uint64_t{0}, info->size / 2 + 1, info->size - 1}) {
            const auto got = fs_.read(node, offset, buffer_);
            require(!got || *got <= buffer_.size());
        }
    }

    firmware::FileSystem& fs_;
    int left_ = 50;
    std::vector<std::byte> buffer_ = std::vector<std::byte>(6000);
};

}  // namespace masu::fuzz
