// qemu-img at arm's length: converts what is not raw.
#pragma once

#include <string>

#include "base/result.hpp"
#include "tools/masu/image_format.hpp"
#include "tools/masu/progress.hpp"

namespace masu::cli {

// Refuses an image whose own tables are damaged, or name what is not there any more: converting
// would take that for zeros. Formats that qemu-img cannot check pass.
[[nodiscard]] Result<> check_integrity(const std::string& source, ImageFormat format,
                                       const Interruptions& interruptions);

// The size of the disk in `source`, in bytes.
[[nodiscard]] Result<std::uint64_t> virtual_size(const std::string& source, ImageFormat format,
                                                 const Interruptions& interruptions);

// Writes the disk in `source` to the raw file `target`, sparse. The format was judged before
// (detect_format) and is told to qemu-img, which guesses nothing and opens no backing file.
// `size`: the disk's, for `progress`.
[[nodiscard]] Result<> convert_to_raw(const std::string& source, ImageFormat format,
                                      const std::string& target, std::uint64_t size,
                                      Progress& progress, const Interruptions& interruptions);

}  // namespace masu::cli
