// Whole machines that start from their disks through the firmware, and what came of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/machine.hpp"

namespace masu::test {

// A file that may be written to, gone at the end; a copy of `from` unless that is empty.
class DiskFile {
  public:
    explicit DiskFile(const std::string& from, std::size_t size = 0);
    ~DiskFile();
    DiskFile(const DiskFile&) = delete;
    DiskFile& operator=(const DiskFile&) = delete;

    [[nodiscard]] const std::string& path() const { return path_; }
    [[nodiscard]] std::vector<std::byte> read() const;
    void write(std::span<const std::byte> all) const;
    // The first `what` becomes `with`, which is as long or shorter.
    void overwrite(std::string_view what, std::string_view with) const;
    void resize(std::size_t size) const;

  private:
    std::string path_ = "/tmp/masu-firmware-test-XXXXXX";
};

struct Ended {
    std::string console;
    std::optional<StopEvent> stop;  // none: it still ran after three minutes
    bool entry = false, loader = false, handover = false;

    [[nodiscard]] bool says(std::string_view text) const {
        return console.find(text) != std::string::npos;
    }
};

struct Input {
    std::vector<std::string> disks;
    std::string load_options;
    std::uint64_t memory_mib = 64;
    bool boot_menu = false;
    unsigned boot_device = 0;
    std::string wait_for;  // once this is on the console,
    std::string type;      // this is typed
};

// Runs the machine to its end.
[[nodiscard]] Ended run_guest(const Input& input);

}  // namespace masu::test
