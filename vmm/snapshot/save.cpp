#include "vmm/snapshot/save.hpp"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <tuple>
#include <vector>

#include "base/atomic_file.hpp"
#include "base/fd.hpp"
#include "vmm/api/json_writer.hpp"
#include "vmm/kvm/cpu_features.hpp"
#include "vmm/kvm/cpu_template.hpp"
#include "vmm/snapshot/copy_file.hpp"
#include "vmm/snapshot/memory_file.hpp"
#include "vmm/snapshot/state_file.hpp"
#include "vmm/version.hpp"

namespace masu::snapshot {

namespace {

std::string_view as_text(const std::vector<std::byte>& bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

Result<SavedDrive> save_drive(const DriveConfig& config, const std::string& folder) {
    SavedDrive saved{.config = config, .kind = "reference", .file = {}, .copied = 0};
    if (config.is_read_only)
        return saved;
    saved.kind = config.overlay_path ? "overlay" : "raw";
    saved.file = fmt::format("disk-{}.{}", config.drive_id, saved.kind);
    auto copied = copy_file(config.overlay_path.value_or(config.path_on_host),
                            fmt::format("{}/{}", folder, saved.file), Sync::Later);
    if (!copied)
        return in_context(fmt::format("drive {}", config.drive_id), std::move(copied).error());
    saved.copied = *copied;
    return saved;
}

// What a host must have at least. Of a VM without a template: that, and perhaps more.
std::string_view cpu_level(std::span<const kvm_cpuid_entry2> leaves) {
    const auto level = kvm::level_of(leaves);
    return level ? kvm::to_string(*level) : "x86-64";
}

std::string manifest(const MachineState& state, const SaveResult& result, const MemoryPlan& plan,
                     const std::vector<SavedDrive>& drives, const VmConfig& config,
                     const std::string& metadata) {
    const auto shown = state.vcpus.empty() ? kvm::CpuidLeaves() : state.vcpus.front().cpuid;
    api::JsonWriter json;
    json.begin_object()
        .field("format", fmt::format("{}.{}", format_major, format_minor))
        .field("masu_version", version())
        .field("vm_id", config.id)
        .field("saved_ms", state.wall_time / 1'000'000)
        .field("transport", state.transport == Transport::Pci ? "pci" : "mmio")
        .field("vcpu_count", state.vcpus.size())
        .field("cpu_template", kvm::to_string(config.machine.cpu_template))
        .field("cpu_vendor", kvm::cpu_vendor(shown))
        .field("cpu_level", cpu_level(shown))
        .field("memory_bytes", state.memory_bytes)
        .field("memory_stored_bytes", result.memory_stored)
        .field("memory_written_bytes", result.memory_written)
        .field("memory_form", to_string(plan.form))
        .field("id", to_hex(result.id));
    if (plan.form != MemoryForm::Whole && plan.parent)
        json.field("parent_id", to_hex(*plan.parent)).field("parent_path", plan.parent_path);
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

Result<> sync_file(int fd, const std::string& path) {
    if (::fsync(fd) < 0)
        return fail_errno(errno, "cannot sync {}", path);
    return {};
}

Result<Fd> create_file(const std::string& path) {
    Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!file)
        return fail_errno(errno, "cannot create {}", path);
    return file;
}

Result<std::uint64_t> save_pages(const kvm::GuestRam& ram, const PageSet& pages, int fd,
                                 const std::string& path) {
    TRY(size_memory(fd, ram.size(), path));
    return write_pages(ram, pages, fd, Zeros::Data, path);
}

PageList own_pages(const MachineState& state, const MemoryPlan& plan) {
    PageList list{.kind = PageListKind::OwnPages,
                  .memory_bytes = state.memory_bytes,
                  .belongs_to = plan.parent.value_or(SnapshotId{}),
                  .runs = {}};
    add_runs(list.runs, *plan.pages, PageUse::Written);
    return list;
}

// Too many runs for the list: then all pages are its own.
std::optional<PageSet> all_if_too_many(const MemoryPlan& plan) {
    if (plan.form != MemoryForm::OwnPages || plan.pages->runs().size() <= max_page_runs)
        return std::nullopt;
    PageSet all(plan.pages->pages());
    for (std::size_t page = 0; page < all.pages(); ++page)
        all.add(page);
    return all;
}

std::uint64_t stored_bytes(int fd) {
    struct stat status{};
    return ::fstat(fd, &status) == 0 ? static_cast<std::uint64_t>(status.st_blocks) * 512 : 0;
}

}  // namespace

// A name that goes away with it unless kept.
class TemporaryPath {
  public:
    explicit TemporaryPath(std::string path) : path_(std::move(path)) {}
    ~TemporaryPath() {
        if (!path_.empty()) {
            std::error_code ignored;
            std::filesystem::remove_all(path_, ignored);
        }
    }
    TemporaryPath(const TemporaryPath&) = delete;
    TemporaryPath& operator=(const TemporaryPath&) = delete;
    [[nodiscard]] const std::string& path() const { return path_; }
    void keep() { path_.clear(); }

  private:
    std::string path_;
};

Result<SaveResult> save_files(const MachineState& state, const kvm::GuestRam& ram,
                              const std::string& state_path, const std::string& memory_path,
                              const PageSet* only) {
    if (state_path == memory_path)
        return fail("the state and the memory cannot both go to {}", state_path);
    SaveResult result;
    TemporaryPath temporary(fmt::format("{}.partial-{}", memory_path, ::getpid()));
    ::unlink(temporary.path().c_str());
    result.memory = TRY(create_file(temporary.path()));
    const int fd = result.memory.get();
    result.memory_written = only != nullptr ? TRY(save_pages(ram, *only, fd, temporary.path()))
                                            : TRY(write_memory(ram, fd, temporary.path()));
    result.memory_stored = result.memory_written;
    TRY(sync_file(fd, temporary.path()));
    if (::rename(temporary.path().c_str(), memory_path.c_str()) < 0)
        return fail_errno(errno, "cannot rename {} to {}", temporary.path(), memory_path);
    temporary.keep();
    TRY(sync_folder(folder_of(memory_path)));
    const auto encoded = encode(state);
    TRY(write_file_atomically(state_path, as_text(encoded)));
    result.id = id_of(encoded);
    return result;
}

DirectorySave::DirectorySave() = default;
DirectorySave::DirectorySave(DirectorySave&&) noexcept = default;
DirectorySave& DirectorySave::operator=(DirectorySave&&) noexcept = default;
DirectorySave::~DirectorySave() = default;

Result<DirectorySave> DirectorySave::begin(const std::string& path, const MemoryPlan& plan) {
    struct stat status{};
    if (::lstat(path.c_str(), &status) == 0)
        return fail("{} exists already: give the snapshot another name, or remove that first",
                    path);
    std::string name = path + ".partial-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr)
        return fail_errno(errno, "cannot create {}", name);
    DirectorySave save;
    save.path_ = path;
    save.temporary_ = std::make_unique<TemporaryPath>(name);
    save.memory_path_ = fmt::format(
        "{}/{}", name, plan.form == MemoryForm::OwnPages ? own_memory_name : memory_name);
    save.memory_ = TRY(create_file(save.memory_path_));
    if (plan.form == MemoryForm::OnBase)
        std::ignore = TRY(copy_content(plan.base, save.memory(), save.memory_path_));
    return save;
}

Result<> DirectorySave::copy_drives(const VmConfig& config) {
    for (const auto& drive : config.drives)
        drives_.push_back(TRY(save_drive(drive, temporary_->path())));
    return {};
}

Result<SaveResult> DirectorySave::commit(const MachineState& state, const VmConfig& config,
                                         const MemoryPlan& plan, std::uint64_t written,
                                         const std::string& metadata) {
    const auto& name = temporary_->path();
    if (plan.form == MemoryForm::OwnPages && plan.pages->runs().size() > max_page_runs)
        return fail("the pages written lie too scattered to be kept apart: save the VM whole");
    TRY(sync_file(memory(), memory_path_));
    for (const auto& drive : drives_) {
        if (drive.file.empty())
            continue;
        const auto path = fmt::format("{}/{}", name, drive.file);
        const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
        TRY(sync_file(file.get(), path));
    }
    const auto encoded = encode(state);
    SaveResult result{.memory_stored = stored_bytes(memory()),
                      .memory_written = written,
                      .id = id_of(encoded),
                      .memory = {}};
    TRY(write_file_atomically(fmt::format("{}/{}", name, state_name), as_text(encoded)));
    if (plan.form == MemoryForm::OwnPages)
        TRY(write_file_atomically(fmt::format("{}/{}", name, own_pages_name),
                                  as_text(encode(own_pages(state, plan)))));
    TRY(write_file_atomically(fmt::format("{}/{}", name, manifest_name),
                              manifest(state, result, plan, drives_, config, metadata)));
    if (::syscall(SYS_renameat2, AT_FDCWD, name.c_str(), AT_FDCWD, path_.c_str(),
                  RENAME_NOREPLACE) < 0)
        return fail_errno(errno, "cannot rename {} to {}", name, path_);
    temporary_->keep();
    TRY(sync_folder(folder_of(path_)));
    result.memory = std::move(memory_);
    return result;
}

Result<SaveResult> save_directory(const MachineState& state, const kvm::GuestRam& ram,
                                  const VmConfig& config, const std::string& path,
                                  const std::string& metadata, const MemoryPlan& wanted) {
    auto plan = wanted;
    const auto all = all_if_too_many(plan);
    if (all)
        plan.pages = &*all;
    auto save = TRY(DirectorySave::begin(path, plan));
    TRY(save.copy_drives(config));
    std::uint64_t written = 0;
    switch (plan.form) {
        case MemoryForm::Whole:
            written = TRY(write_memory(ram, save.memory(), save.memory_path()));
            break;
        case MemoryForm::OnBase:
            written =
                TRY(write_pages(ram, *plan.pages, save.memory(), Zeros::Hole, save.memory_path()));
            break;
        case MemoryForm::OwnPages:
            written = TRY(save_pages(ram, *plan.pages, save.memory(), save.memory_path()));
            break;
    }
    return save.commit(state, config, plan, written, metadata);
}

}  // namespace masu::snapshot
