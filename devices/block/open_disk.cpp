// From a path to a disk: file, engine and overlay put together.
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.hpp"
#include "devices/block/disk.hpp"
#include "devices/block/engine.hpp"
#include "devices/block/overlay_disk.hpp"

namespace masu::block {
namespace {

Result<std::unique_ptr<Disk>> disk_on(File file, const OpenOptions& options, Opened& opened) {
    auto engine = options.late_engine
                      ? TRY(start_engine_later(std::move(file), options.force_sync, options.warn))
                      : TRY(start_engine(std::move(file), options.force_sync));
    opened.engine = engine.name;
    if (!engine.warning.empty())
        opened.warnings.push_back(std::move(engine.warning));
    return std::move(engine.disk);
}

bool same_file(const std::string& one, const std::string& other) {
    struct stat of_one{};
    struct stat of_other{};
    return ::stat(one.c_str(), &of_one) == 0 && ::stat(other.c_str(), &of_other) == 0 &&
           of_one.st_dev == of_other.st_dev && of_one.st_ino == of_other.st_ino;
}

std::string absolute(const std::string& path) {
    char buffer[PATH_MAX];
    return ::realpath(path.c_str(), buffer) != nullptr ? std::string(buffer) : path;
}

Result<> create_missing_overlay(const OpenOptions& options, const BaseIdentity& identity,
                                std::uint64_t base_size) {
    if (::access(options.overlay.c_str(), F_OK) == 0 || errno != ENOENT)
        return {};
    const auto size = options.overlay_size == 0 ? base_size : options.overlay_size;
    if (size < identity.size || size % sector_size != 0 || size > overlay_max_size)
        return fail(
            "overlay {} cannot make a disk of {} bytes: it takes a multiple of 512, at "
            "least the {} bytes of its base and at most {}",
            options.overlay, size, identity.size, format_size(overlay_max_size));
    return create_overlay_file(options.overlay,
                               make_overlay_header(size, identity, absolute(options.path)),
                               options.overlay_synced);
}

Result<Opened> open_overlay(const OpenOptions& options) {
    if (same_file(options.overlay, options.path))
        return fail("disk {} cannot be the overlay of itself; give the overlay another path",
                    options.path);
    Opened opened;
    auto base_file = TRY(File::open(
        {.path = options.path, .read_only = true, .direct = options.direct}, opened.warnings));
    const auto on_host = TRY(base_file.identity());
    auto print = fingerprint(base_file);
    if (!print)
        return in_context("disk " + options.path, std::move(print).error());
    const BaseIdentity identity{base_file.size(), on_host.mtime_ns, *print};
    auto base = TRY(disk_on(std::move(base_file), options, opened));
    TRY(create_missing_overlay(options, identity, base->size()));
    auto store_file = TRY(File::open(
        {.path = options.overlay, .read_only = options.read_only, .direct = options.direct},
        opened.warnings));
    const auto header = TRY(read_overlay_header(store_file));
    auto store = TRY(disk_on(std::move(store_file), options, opened));
    opened.disk = TRY(
        OverlayDisk::open(std::move(base), identity, *header, std::move(store), options.overlay));
    if (options.overlay_size != 0 && opened.disk->size() != options.overlay_size)
        return fail(
            "overlay {} exists and makes a disk of {} bytes, not of {}; leave the size out to use "
            "it, or give another path to have a new one made",
            options.overlay, opened.disk->size(), options.overlay_size);
    return opened;
}

}  // namespace

Result<Opened> open_disk(const OpenOptions& options) {
    if (!options.overlay.empty())
        return open_overlay(options);
    Opened opened;
    auto file = TRY(
        File::open({.path = options.path, .read_only = options.read_only, .direct = options.direct},
                   opened.warnings));
    opened.disk = TRY(disk_on(std::move(file), options, opened));
    return opened;
}

}  // namespace masu::block
