// From a file as people have it to an image in the store.
#pragma once

#include <string>

#include "base/result.hpp"
#include "tools/masu/image_store.hpp"
#include "tools/masu/progress.hpp"

namespace masu::cli {

// Unpacks and converts `path` and publishes it as `name`. Nothing is kept of a failure. Errors name
// the file.
[[nodiscard]] Result<Image> import_image(ImageStore& store, const std::string& path,
                                         const std::string& name,
                                         const Interruptions& interruptions);

// Takes in a raw disk that is at image.disk() already, with `record`'s source and format set: size,
// checksum and boot method are found out here.
[[nodiscard]] Result<Image> adopt_disk(ImageStore& store, NewImage image, ImageRecord record,
                                       Progress& progress, const Interruptions& interruptions);

// The first bytes of `path` decide; what is not a raw disk is refused, with the command that
// imports it. For disks that are used as they are.
[[nodiscard]] Result<> check_raw_disk(const std::string& path);

}  // namespace masu::cli
