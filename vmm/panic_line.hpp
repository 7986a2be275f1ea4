// Finds a Linux kernel's last words in its serial output.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

namespace masu {

// Fed with output in any pieces; remembers the first line that says "Kernel panic - not syncing".
// Memory is bounded whatever the guest prints. One thread.
class PanicLine {
  public:
    static constexpr std::size_t max_line = 256;

    void feed(std::span<const std::byte> bytes);
    void reset();
    // From "Kernel panic" to the end of the line as far as it has come; printable characters only.
    [[nodiscard]] std::optional<std::string> found() const;

  private:
    void end_line();
    std::string line_;
    std::optional<std::string> found_;
};

}  // namespace masu
