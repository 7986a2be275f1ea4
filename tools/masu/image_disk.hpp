// The disk that `masu run IMAGE` boots: an overlay of the VM's own over a shared, read-only base.
#pragma once

#include <optional>
#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "tools/masu/disk_option.hpp"
#include "tools/masu/image_store.hpp"

namespace masu::cli {

struct ImageDisk {
    DiskOption disk;
    std::string image;  // the image's name; empty for a raw file that was never imported
    Fd hold;            // keep it until the VM's record names the image
};

// `word` is the name of an image, or the path of a raw disk: with a slash in it always a path,
// otherwise an image if there is one of that name. `overlay`: the file to make. `size`: of the disk
// in bytes, at least the base's; without it as large as the base.
[[nodiscard]] Result<ImageDisk> choose_image(const ImageStore& store, const std::string& word,
                                             const std::string& overlay,
                                             std::optional<std::uint64_t> size);

// A disk's size as an option gives it; `option` is for the error.
[[nodiscard]] Result<std::uint64_t> parse_disk_size(std::string_view option,
                                                    const std::string& text);

}  // namespace masu::cli
