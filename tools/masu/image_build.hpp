// masu image build: runs the recipe of guest/image and takes its disk in.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.hpp"
#include "tools/masu/image_store.hpp"
#include "tools/masu/progress.hpp"

namespace masu::cli {

// A Debian 12 cloud image from the packages of this machine's own apt sources. `size`: of the disk,
// a multiple of 1 MiB. Needs root, minutes, and about 3 GiB in the state folder meanwhile.
[[nodiscard]] Result<Image> build_image(ImageStore& store, const std::string& name,
                                        std::uint64_t size, const Interruptions& interruptions);

}  // namespace masu::cli
