// What moves a disk file's bytes: io_uring, or blocking calls where the host forbids that.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/fd.hpp"
#include "devices/block/disk.hpp"
#include "devices/block/file.hpp"

namespace masu::block {

struct Engine {
    std::unique_ptr<Disk> disk;
    const char* name = "";  // "io_uring", "sync" or "none yet"
    std::string warning;    // empty: none
};

// Made at once.
[[nodiscard]] Result<Engine> start_engine(File file, bool force_sync);

// Made with the first request, or by wake(), on that thread: a copy of a snapshot may never ask for
// one. Calls `warn` then where start_engine() would have had a warning.
[[nodiscard]] Result<Engine> start_engine_later(File file, bool force_sync,
                                                std::function<void(const std::string&)> warn);

}  // namespace masu::block
