#include "vmm/snapshot/save.hpp"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <vector>

#include "base/atomic_file.hpp"
#include "base/fd.hpp"
#include "vmm/api/json_writer.hpp"
#include "vmm/snapshot/copy_file.hpp"
#include "vmm/snapshot/memory_file.hpp"
#include "vmm/snapshot/state_file.hpp"
#include "vmm/version.hpp"

namespace masu::snapshot {

namespace {

// A name that goes away with it unless kept.
class Temporary {
  public:
    explicit Temporary(std::string path) : path_(std::move(path)) {}
    ~Temporary() {
        if (!path_.empty()) {
            std::error_code ignored;
            std::filesystem::remove_all(path_, ignored);
        }
    }
    Temporary(const Temporary&) = delete;
    Temporary& operator=(const Temporary&) = delete;
    [[nodiscard]] const std::string& path() const { return path_; }
    void keep() { path_.clear(); }

  private:
    std::string path_;
};

std::string folder_of(const std::string& path) {
    const auto slash = path.rfind('/');
    return slash == std::string::npos ? "." : path.substr(0, slash + 1);
}

Result<> sync_folder(const std::string& path) {
    const Fd folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!folder || ::fsync(folder.get()) < 0)
        return fail_errno(errno, "cannot sync folder {}", path);
    return {};
}

std::string_view as_text(const std::vector<std::byte>& bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// How a drive is part of a snapshot.
struct SavedDrive {
    DriveConfig config;
    std::string kind;  // "reference", "overlay" or "raw"
    std::string file;  // in the directory; empty for a reference
    std::uint64_t copied = 0;
};

Result<SavedDrive> save_drive(const DriveConfig& config, const std::string& folder) {
    SavedDrive saved{.config = config, .kind = "reference", .file = {}, .copied = 0};
    if (config.is_read_only)
        return saved;
    saved.kind = config.overlay_path ? "overlay" : "raw";
    saved.file = fmt::format("disk-{}.{}", config.drive_id, saved.kind);
    auto copied = copy_file(config.overlay_path.value_or(config.path_on_host),
                            fmt::format("{}/{}", folder, saved.file));
    if (!copied)
        return in_context(fmt::format("drive {}", config.drive_id), std::move(copied).error());
    saved.copied = *copied;
    return saved;
}

std::string manifest(const MachineState& state, const SaveResult& result,
                     const std::vector<SavedDrive>& drives, const VmConfig& config,
                     const std::string& metadata) {
    api::JsonWriter json;
    json.begin_object()
        .field("format", fmt::format("{}.{}", format_major, format_minor))
        .field("masu_version", version())
        .field("vm_id", config.id)
        .field("saved_ms", state.wall_time / 1'000'000)
        .field("transport", state.transport == Transport::Pci ? "pci" : "mmio")
        .field("vcpu_count", state.vcpus.size())
        .field("memory_bytes", state.memory_bytes)
        .field("memory_stored_bytes", result.memory_stored);
    json.key("drives").begin_array();
    for (const auto& drive : drives) {
        json.begin_object()
            .field("drive_id", drive.config.drive_id)
            .field("kind", drive.kind)
            .field("path_on_host", drive.config.path_on_host);
        if (!drive.file.empty())
            json.field("file", drive.file).field("copied_bytes", drive.copied);
        json.end_object();
    }
    json.end_array();
    if (!metadata.empty())
        json.field("metadata", metadata);
    json.end_object();
    return json.text() + "\n";
}

Result<SaveResult> save_memory(const kvm::GuestRam& ram, const std::string& path) {
    const Fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!file)
        return fail_errno(errno, "cannot create {}", path);
    return SaveResult{.memory_stored = TRY(write_memory(ram, file.get(), path))};
}

}  // namespace

Result<SaveResult> save_files(const MachineState& state, const kvm::GuestRam& ram,
                              const std::string& state_path, const std::string& memory_path) {
    if (state_path == memory_path)
        return fail("the state and the memory cannot both go to {}", state_path);
    Temporary temporary(fmt::format("{}.partial-{}", memory_path, ::getpid()));
    ::unlink(temporary.path().c_str());
    auto result = TRY(save_memory(ram, temporary.path()));
    if (::rename(temporary.path().c_str(), memory_path.c_str()) < 0)
        return fail_errno(errno, "cannot rename {} to {}", temporary.path(), memory_path);
    temporary.keep();
    TRY(sync_folder(folder_of(memory_path)));
    TRY(write_file_atomically(state_path, as_text(encode(state))));
    return result;
}

Result<SaveResult> save_directory(const MachineState& state, const kvm::GuestRam& ram,
                                  const VmConfig& config, const std::string& path,
                                  const std::string& metadata) {
    struct stat status{};
    if (::lstat(path.c_str(), &status) == 0)
        return fail("{} exists already: give the snapshot another name, or remove that first",
                    path);
    std::string name = path + ".partial-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr)
        return fail_errno(errno, "cannot create {}", name);
    Temporary temporary(name);
    std::vector<SavedDrive> drives;
    for (const auto& drive : config.drives)
        drives.push_back(TRY(save_drive(drive, name)));
    const auto result = TRY(save_memory(ram, fmt::format("{}/{}", name, memory_name)));
    TRY(write_file_atomically(fmt::format("{}/{}", name, state_name), as_text(encode(state))));
    TRY(write_file_atomically(fmt::format("{}/{}", name, manifest_name),
                              manifest(state, result, drives, config, metadata)));
    if (::syscall(SYS_renameat2, AT_FDCWD, name.c_str(), AT_FDCWD, path.c_str(), RENAME_NOREPLACE) <
        0)
        return fail_errno(errno, "cannot rename {} to {}", name, path);
    temporary.keep();
    TRY(sync_folder(folder_of(path)));
    return result;
}

}  // namespace masu::snapshot
