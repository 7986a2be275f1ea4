// GRUB's "test" and "[": conditions over words.
#pragma once

#include <span>
#include <string_view>

namespace masu::firmware {

// What a condition may ask about the disk.
class GrubFiles {
  public:
    enum class Kind : unsigned char { None, File, EmptyFile, Directory };
    [[nodiscard]] virtual Kind kind_of(std::string_view path) noexcept = 0;

  protected:
    ~GrubFiles() = default;
};

// `words` without the command's name and without the closing "]". What it does not understand is
// false.
[[nodiscard]] bool evaluate_test(std::span<const std::string_view> words,
                                 GrubFiles& files) noexcept;

}  // namespace masu::firmware
