#include "tools/masu/snapshot_store.hpp"

#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <tuple>

#include <boost/json.hpp>

#include "base/atomic_file.hpp"
#include "base/bytes.hpp"
#include "vmm/snapshot/copy_file.hpp"

namespace masu::cli {
namespace {

namespace fs = std::filesystem;
constexpr std::size_t manifest_limit = 1 * MiB;
constexpr const char* partial_mark = ".partial-";

std::string text_at(const boost::json::object& object, std::string_view key) {
    return std::string(object.at(key).as_string());
}

Snapshot parse_manifest(const std::string& text, const std::string& name, const std::string& path) {
    Snapshot snapshot;
    snapshot.name = name;
    snapshot.path = path;
    snapshot.manifest = boost::json::parse(text).as_object();
    const auto& manifest = snapshot.manifest;
    snapshot.saved = manifest.at("saved_ms").to_number<std::int64_t>() / 1000;
    snapshot.memory_bytes = manifest.at("memory_bytes").to_number<std::uint64_t>();
    snapshot.memory_stored = manifest.at("memory_stored_bytes").to_number<std::uint64_t>();
    const auto text_or_nothing = [&](std::string_view key) {
        return manifest.contains(key) ? text_at(manifest, key) : std::string();
    };
    snapshot.memory_form = text_or_nothing("memory_form");
    if (snapshot.memory_form.empty())
        snapshot.memory_form = "whole";
    snapshot.memory_written = manifest.contains("memory_written_bytes")
                                  ? manifest.at("memory_written_bytes").to_number<std::uint64_t>()
                                  : snapshot.memory_stored;
    if (text_or_nothing("memory_file") == to_string(MemoryFile::Compressed))
        snapshot.memory_file = MemoryFile::Compressed;
    snapshot.id = text_or_nothing("id");
    snapshot.parent_id = text_or_nothing("parent_id");
    snapshot.parent_path = text_or_nothing("parent_path");
    for (const auto& value : manifest.at("drives").as_array()) {
        const auto& drive = value.as_object();
        snapshot.drives.push_back(
            {.drive_id = text_at(drive, "drive_id"),
             .kind = text_at(drive, "kind"),
             .path = text_at(drive, "path_on_host"),
             .file = drive.contains("file") ? text_at(drive, "file") : std::string()});
    }
    return snapshot;
}

std::uint64_t disk_bytes(const std::string& path) {
    struct stat status{};
    return ::stat(path.c_str(), &status) == 0 ? static_cast<std::uint64_t>(status.st_blocks) * 512
                                              : 0;
}

std::uint64_t disk_bytes_below(const std::string& folder) {
    std::uint64_t total = 0;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder, error))
        total += disk_bytes(entry.path().string());
    return total;
}

std::unexpected<Error> no_such_snapshot(const std::string& name) {
    return fail("there is no snapshot named {}; `masu snapshot ls` lists those there are", name);
}

// 0, or why not.
int move_folder(const std::string& from, const std::string& to) {
    return ::syscall(SYS_renameat2, AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(),
                     RENAME_NOREPLACE) < 0
               ? errno
               : 0;
}

Result<> copy_folder(const std::string& from, const std::string& to) {
    if (::mkdir(to.c_str(), 0700) < 0)
        return fail_errno(errno, "cannot make the folder {}", to);
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(from, error))
        std::ignore = TRY(snapshot::copy_file(
            entry.path(), fmt::format("{}/{}", to, entry.path().filename().string())));
    if (error)
        return fail("cannot read the folder {}: {}", from, error.message());
    return sync_folder(to);
}

}  // namespace

std::uint64_t Snapshot::stored_bytes() const {
    return disk_bytes_below(path);
}

Result<std::string> SnapshotStore::prepare(const std::string& name) const {
    if (const auto good = check_vm_name(name); !good)
        return fail("\"{}\" is not a name for a snapshot: use letters, digits and '-'", name);
    std::error_code error;
    fs::create_directories(path_, error);
    if (error)
        return fail("cannot make the folder {}: {}", path_, error.message());
    // A monitor that is just writing touches its folder; what is a day old is nobody's.
    const auto long_ago = fs::file_time_type::clock::now() - std::chrono::hours(24);
    for (const auto& entry : fs::directory_iterator(path_, error)) {
        std::error_code gone;
        if (entry.path().filename().string().contains(partial_mark) &&
            entry.last_write_time(gone) < long_ago && !gone)
            fs::remove_all(entry.path(), gone);
    }
    if (fs::exists(folder_of(name), error))
        return fail(
            "a snapshot named {} exists already; choose another name, or delete it with "
            "`masu snapshot rm {}`",
            name, name);
    return folder_of(name);
}

Result<> SnapshotStore::adopt(const std::string& path, const std::string& name) const {
    const auto kept = folder_of(name);
    const int error = move_folder(path, kept);
    if (error == 0)
        return sync_folder(path_);
    if (error != EXDEV)
        return fail_errno(error, "the snapshot is saved in {}, and cannot be moved to {}", path,
                          kept);
    const auto copy = fmt::format("{}{}{}", kept, partial_mark, ::getpid());
    auto copied = copy_folder(path, copy);
    if (const int moved = copied ? move_folder(copy, kept) : 0; moved != 0)
        copied = fail_errno(moved, "cannot move {} to {}", copy, kept);
    std::error_code ignored;
    for (const auto& rest : {path, copy})
        fs::remove_all(rest, ignored);
    return copied ? sync_folder(path_) : copied;
}

Result<Fd> SnapshotStore::hold(const std::string& name, bool exclusive) const {
    if (!check_vm_name(name))
        return no_such_snapshot(name);
    const auto path = folder_of(name);
    Fd folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!folder)
        return no_such_snapshot(name);
    while (::flock(folder.get(), exclusive ? LOCK_EX : LOCK_SH) < 0)
        if (errno != EINTR)
            return fail_errno(errno, "cannot lock {}", path);
    return folder;
}

Result<Snapshot> SnapshotStore::find(const std::string& name) const {
    const auto path = folder_of(name);
    std::error_code error;
    if (!check_vm_name(name) || !fs::is_directory(path, error))
        return no_such_snapshot(name);
    const auto file = path + "/manifest.json";
    const auto text = TRY(read_file(file, manifest_limit));
    try {
        auto snapshot = parse_manifest(text, name, path);
        snapshot.vm = TRY(parse_vm_record(text_at(snapshot.manifest, "metadata")));
        return snapshot;
    } catch (const std::exception& cause) {
        return fail("{} is not the manifest of a snapshot made by `masu snapshot create`: {}", file,
                    cause.what());
    }
}

Result<std::vector<std::string>> SnapshotStore::names() const {
    std::vector<std::string> found;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(path_, error))
        if (const auto name = entry.path().filename().string(); check_vm_name(name))
            found.push_back(name);
    if (error && error != std::errc::no_such_file_or_directory)
        return fail("cannot read the folder {}: {}", path_, error.message());
    std::ranges::sort(found);
    return found;
}

// First out of sight, so that a crash half-way leaves no snapshot that looks whole.
Result<> SnapshotStore::remove(const std::string& name) const {
    const auto hidden = folder_of(name) + partial_mark + "rm";
    std::error_code error;
    fs::remove_all(hidden, error);
    if (::rename(folder_of(name).c_str(), hidden.c_str()) < 0)
        return fail_errno(errno, "cannot delete {}", folder_of(name));
    fs::remove_all(hidden, error);
    if (error)
        return fail("cannot delete {}: {}", hidden, error.message());
    return {};
}

std::uint64_t SnapshotStore::bytes_so_far(const std::string& path) {
    std::uint64_t total = 0;
    std::error_code error;
    const auto begun = fs::path(path).filename().string() + partial_mark;
    for (const auto& entry : fs::directory_iterator(fs::path(path).parent_path(), error))
        if (entry.path().filename().string().starts_with(begun))
            total += disk_bytes_below(entry.path().string());
    return total;
}

Result<std::optional<Snapshot>> SnapshotStore::parent_of(const Snapshot& snapshot) const {
    if (snapshot.whole())
        return std::nullopt;
    for (const auto& name : TRY(names()))
        if (auto other = find(name); other && other->id == snapshot.parent_id)
            return std::optional(*std::move(other));
    return std::nullopt;
}

Result<std::vector<Snapshot>> SnapshotStore::chain_of(const Snapshot& snapshot) const {
    const auto limit = TRY(names()).size();
    std::vector<Snapshot> chain;
    auto top = snapshot;
    while (!top.whole()) {
        auto below = TRY(parent_of(top));
        if (!below)
            return fail("the snapshot {} that {} builds on is gone", top.parent_path, top.name);
        if (chain.size() >= limit)
            return fail("the manifests of {} and those it builds on go in a circle", snapshot.name);
        top = *below;
        chain.insert(chain.begin(), *std::move(below));
    }
    return chain;
}

Result<std::vector<std::string>> SnapshotStore::children_of(const Snapshot& snapshot) const {
    std::vector<std::string> children;
    for (const auto& name : TRY(names()))
        if (const auto other = find(name);
            other && !other->whole() && !snapshot.id.empty() && other->parent_id == snapshot.id)
            children.push_back(name);
    return children;
}

Result<std::vector<std::string>> SnapshotStore::overlaid_by(const Snapshot& snapshot) const {
    std::vector<std::string> above;
    for (const auto& name : TRY(names())) {
        const auto other = find(name);
        if (other && name != snapshot.name &&
            std::ranges::any_of(other->drives, [&](const SnapshotDrive& drive) {
                return drive.path.starts_with(snapshot.path + "/");
            }))
            above.push_back(name);
    }
    return above;
}

Result<std::vector<std::string>> SnapshotStore::of_image(const std::string& image) const {
    std::vector<std::string> found;
    for (const auto& name : TRY(names()))
        if (const auto snapshot = find(name); snapshot && snapshot->vm.image == image)
            found.push_back(name);
    return found;
}

Result<std::uint64_t> SnapshotStore::shared_bytes(const Snapshot& snapshot) const {
    constexpr std::size_t extents_at_once = 256;
    const auto file = snapshot.path + "/memory";
    const Fd memory(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
    if (!memory)
        return fail_errno(errno, "cannot open {}", file);
    std::vector<std::uint64_t> room(
        (sizeof(fiemap) + extents_at_once * sizeof(fiemap_extent)) / sizeof(std::uint64_t) + 1);
    auto* map = reinterpret_cast<fiemap*>(room.data());
    std::uint64_t shared = 0;
    for (std::uint64_t place = 0; place < snapshot.memory_bytes;) {
        std::ranges::fill(room, 0);
        map->fm_start = place;
        map->fm_length = snapshot.memory_bytes - place;
        map->fm_extent_count = extents_at_once;
        // A file system that cannot tell shares nothing.
        if (::ioctl(memory.get(), FS_IOC_FIEMAP, map) < 0 || map->fm_mapped_extents == 0)
            break;
        for (std::uint32_t i = 0; i < map->fm_mapped_extents; ++i) {
            const auto& extent = map->fm_extents[i];
            if ((extent.fe_flags & FIEMAP_EXTENT_SHARED) != 0)
                shared += extent.fe_length;
            place = extent.fe_logical + extent.fe_length;
        }
    }
    return shared;
}

Result<> SnapshotStore::note_whole(const Snapshot& snapshot, std::uint64_t stored,
                                   MemoryFile form) const {
    auto manifest = snapshot.manifest;
    manifest["memory_file"] = to_string(form);
    manifest["memory_form"] = "whole";
    manifest["memory_stored_bytes"] = stored;
    manifest["memory_written_bytes"] = stored;
    manifest.erase("parent_id");
    manifest.erase("parent_path");
    return write_file_atomically(snapshot.path + "/manifest.json",
                                 boost::json::serialize(manifest) + "\n");
}

Result<SnapshotStore> open_snapshot_store() {
    return SnapshotStore(TRY(find_places(process_environment(), ::geteuid() == 0)));
}

}  // namespace masu::cli
