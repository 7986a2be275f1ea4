// Real trees of files and real tools: what our readers are checked against.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "firmware/fs/file_system.hpp"

namespace masu::firmware::test {

// A folder that is gone with the object.
class TemporaryFolder {
  public:
    TemporaryFolder();
    ~TemporaryFolder();
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
    [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
    [[nodiscard]] std::string operator/(const std::string& name) const {
        return (path_ / name).string();
    }

  private:
    std::filesystem::path path_;
};

// False, after a line that says so, when a program is missing.
[[nodiscard]] bool have_tools(const std::vector<std::string>& programs);

// Runs a shell command that must succeed, and returns its output (shown when it does not).
std::string run(const std::string& command);
[[nodiscard]] bool try_run(const std::string& command);

struct TreeShape {
    int files = 150;           // spread over nested folders
    int huge_directory = 600;  // empty-ish files in one folder
    int deep = 40;             // folders within each other
    bool links = true;
    bool sparse = true;
    std::uint64_t large_file = 1 << 20;
};

// Makes a tree of files, with contents that depend on their names.
void make_tree(const std::filesystem::path& folder, const TreeShape& shape);

struct Compared {
    int files = 0;
    int directories = 0;
    int links = 0;
    std::uint64_t bytes = 0;
};

// Checks that `fs` holds what `folder` holds: names, types, sizes, contents (in whole and in odd
// pieces), targets of links, and that each path can be opened. `ignored`: a name in the root that
// only the image has.
Compared compare_tree(FileSystem& fs, const std::filesystem::path& folder,
                      const std::string& ignored = "");

}  // namespace masu::firmware::test
