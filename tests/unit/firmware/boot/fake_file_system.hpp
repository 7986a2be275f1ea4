// A file system of files in memory.
#pragma once

#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "firmware/fs/file_system.hpp"

namespace masu::firmware::test {

// Paths without a leading "/"; folders are what files lie in.
class FakeFileSystem final : public FileSystem {
  public:
    explicit FakeFileSystem(std::map<std::string, std::string> files,
                            std::string uuid = "11111111-2222-3333-4444-555555555555",
                            std::string label = "")
        : uuid_(std::move(uuid)), label_(std::move(label)) {
        add("", "", true);
        for (const auto& [path, text] : files) {
            for (std::size_t at = path.find('/'); at != std::string::npos;
                 at = path.find('/', at + 1))
                add(path.substr(0, at), "", true);
            add(path, text, false);
        }
    }

    [[nodiscard]] std::string_view type() const noexcept override { return "fake"; }
    [[nodiscard]] std::string_view uuid() const noexcept override { return uuid_; }
    [[nodiscard]] std::string_view label() const noexcept override { return label_; }
    [[nodiscard]] std::uint64_t total_bytes() const noexcept override { return 0; }
    [[nodiscard]] std::uint32_t block_size() const noexcept override { return 512; }
    [[nodiscard]] Node root() const noexcept override { return {.id = 0}; }
    [[nodiscard]] Result<FileInfo> stat(const Node& node) noexcept override {
        const auto& file = files_[node.id];
        return FileInfo{.type = file.folder ? FileType::Directory : FileType::Regular,
                        .size = file.text.size()};
    }
    [[nodiscard]] Result<std::size_t> read(const Node& file, std::uint64_t offset,
                                           std::span<std::byte> to) noexcept override {
        const auto& text = files_[file.id].text;
        if (offset >= text.size())
            return 0U;
        const std::size_t size = std::min(to.size(), text.size() - offset);
        std::memcpy(to.data(), text.data() + offset, size);
        return size;
    }
    [[nodiscard]] Result<bool> next(const Node& directory, std::uint64_t& cursor,
                                    DirectoryEntry& entry) noexcept override {
        const auto& folder = files_[directory.id].path;
        const std::string prefix = folder.empty() ? "" : folder + "/";
        for (; cursor < files_.size(); ++cursor) {
            const auto& path = files_[cursor].path;
            if (path.empty() || !path.starts_with(prefix) ||
                path.find('/', prefix.size()) != std::string::npos)
                continue;
            entry.node = {.id = cursor};
            entry.name_size = path.size() - prefix.size();
            std::memcpy(entry.name_bytes.data(), path.data() + prefix.size(), entry.name_size);
            ++cursor;
            return true;
        }
        return false;
    }
    [[nodiscard]] Result<Node> lookup(const Node& directory,
                                      std::string_view name) noexcept override {
        const auto& folder = files_[directory.id].path;
        if (!files_[directory.id].folder)
            return fail(ErrorCode::NotDirectory, "it is no directory");
        const std::string path = (folder.empty() ? "" : folder + "/") + std::string(name);
        for (std::size_t i = 0; i < files_.size(); ++i)
            if (files_[i].path == path)
                return Node{.id = i};
        return fail(ErrorCode::NotFound, "there is no such file");
    }
    [[nodiscard]] Result<std::size_t> read_link(const Node&, std::span<char>) noexcept override {
        return fail(ErrorCode::Invalid, "it is no symbolic link");
    }

  private:
    struct File {
        std::string path;
        std::string text;
        bool folder;
    };
    void add(const std::string& path, const std::string& text, bool folder) {
        for (const auto& file : files_)
            if (file.path == path)
                return;
        files_.push_back({path, text, folder});
    }
    std::string uuid_;
    std::string label_;
    std::vector<File> files_;
};

}  // namespace masu::firmware::test
