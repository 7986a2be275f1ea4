// A kernel or initrd as an opened file that is read piece by piece.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace masu::boot {

// Every read is checked against the file, which may shrink meanwhile: errors, never signals.
class ImageFile {
  public:
    // A regular, non-empty file. `what` begins the errors: "kernel", "initrd".
    [[nodiscard]] static Result<ImageFile> open(const char* what, const std::string& path);
    [[nodiscard]] static Result<ImageFile> adopt(const char* what, std::string path, Fd fd);

    [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
    // "kernel /boot/vmlinuz"
    [[nodiscard]] const std::string& name() const noexcept { return name_; }

    // Fills `to` from `offset` on; an error names the file and says that it is truncated.
    [[nodiscard]] Result<> read(std::uint64_t offset, std::span<std::byte> to) const;
    // As many bytes from the start as there are, up to the size of `to`.
    [[nodiscard]] Result<std::span<std::byte>> read_head(std::span<std::byte> to) const;
    template <class T>
        requires std::is_trivially_copyable_v<T>
    [[nodiscard]] Result<T> load(std::uint64_t offset) const {
        T value;
        TRY(read(offset, std::as_writable_bytes(std::span(&value, 1))));
        return value;
    }

  private:
    ImageFile(Fd fd, std::string name, std::uint64_t size)
        : fd_(std::move(fd)), name_(std::move(name)), size_(size) {}
    Fd fd_;
    std::string name_;
    std::uint64_t size_;
};

}  // namespace masu::boot
