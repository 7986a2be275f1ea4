// What kind of disk image a file is, judged by its content alone; names are never trusted.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

#include "base/result.hpp"

namespace masu::cli {

enum class Compression { None, Gzip, Xz, Zstd };
enum class ImageFormat { Raw, Qcow2, Vmdk, Vhd, Vhdx, Vdi };

// Fills `to` from `offset` on and returns how many bytes there were: fewer at the end of the file.
using ReadAt = std::function<Result<std::size_t>(std::uint64_t offset, std::span<std::byte> to)>;

// By magic number.
[[nodiscard]] Result<Compression> detect_compression(const ReadAt& read);

// What is not compressed. `size`: of the file, in bytes. Refused, in a sentence that follows the
// file's name, are images that name other files (a backing file, an external data file, a parent,
// an extent): an untrusted image could name any file of this host. So are encrypted images, and
// what is no disk at all (archives, installers' packages).
[[nodiscard]] Result<ImageFormat> detect_format(const ReadAt& read, std::uint64_t size);

// "xz", or "" for none; "qcow2", "raw", ...: for image.json and people.
[[nodiscard]] std::string_view word_for(Compression compression);
[[nodiscard]] std::string_view word_for(ImageFormat format);
// The driver that qemu-img calls by another name.
[[nodiscard]] std::string_view qemu_driver(ImageFormat format);

}  // namespace masu::cli
