#include "vmm/snapshot/read_ahead.hpp"

#include <sys/stat.h>

#include "vmm/api/config_file.hpp"

namespace masu::snapshot {
namespace {

std::int64_t nanoseconds(const timespec& time) {
    return time.tv_sec * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

std::optional<FileStamp> stamp_of(const std::string& path) {
    struct stat status{};
    if (::stat(path.c_str(), &status) < 0)
        return std::nullopt;
    return FileStamp{.device = status.st_dev,
                     .inode = status.st_ino,
                     .size = status.st_size,
                     .modified = nanoseconds(status.st_mtim),
                     .changed = nanoseconds(status.st_ctim)};
}

Result<ReadState> read_state(const std::string& path) {
    ReadState read{.stamp = stamp_of(path), .state = {}, .id = {}, .settings = {}};
    read.state = TRY(load_state(path, &read.id));
    read.settings = TRY(api::parse_config(read.state.config, "of the snapshot"));
    return read;
}

}  // namespace masu::snapshot
