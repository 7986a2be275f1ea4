// Whole machines that start from their disks through the firmware, and what came of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tests/kvm/whole_machine.hpp"

namespace masu::test {

// A file that may be written to, gone at the end; a copy of `from` unless that is empty.
class DiskFile {
  public:
    explicit DiskFile(const std::string& from, std::size_t size = 0);
    ~DiskFile();
    DiskFile(const DiskFile&) = delete;
    DiskFile& operator=(const DiskFile&) = delete;

    [[nodiscard]] const std::string& path() const { return path_; }
    void write(std::span<const std::byte> all) const;
    // The first `what` becomes `with`, which is as long or shorter.
    void overwrite(std::string_view what, std::string_view with) const;

  private:
    std::string path_ = "/tmp/masu-firmware-test-XXXXXX";
};

struct Input {
    std::vector<std::string> disks;
    std::string load_options;
    std::uint64_t memory_mib = 64;
    bool boot_menu = false;
    unsigned boot_device = 0;
    Typing typing = {};
};

// Runs the machine to its end, for three minutes at most.
[[nodiscard]] Ended run_guest(const Input& input);

}  // namespace masu::test
