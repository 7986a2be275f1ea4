// masu snapshot compress and decompress: where a snapshot's memory takes less room, and back.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <CLI/App.hpp>

#include <cstdio>
#include <memory>
#include <tuple>

#include "base/atomic_file.hpp"
#include "base/bytes.hpp"
#include "tools/masu/compressed_memory.hpp"
#include "tools/masu/progress.hpp"
#include "tools/masu/snapshot_commands.hpp"
#include "tools/masu/snapshot_store.hpp"
#include "vmm/snapshot/save.hpp"
#include "vmm/snapshot/state_file.hpp"

namespace masu::cli {
namespace {

std::string in(const Snapshot& snapshot, const char* name) {
    return fmt::format("{}/{}", snapshot.path, name);
}

Result<snapshot::SnapshotId> id_of_state(const Snapshot& snapshot) {
    const auto state = TRY(read_file(in(snapshot, snapshot::state_name), snapshot::max_state_size));
    return snapshot::id_of(std::as_bytes(std::span(state)));
}

// A file that gets its name when it is whole, and is gone if it never is.
class NewFile {
  public:
    [[nodiscard]] static Result<NewFile> create(const std::string& path) {
        NewFile file;
        file.path_ = path;
        file.partial_ = path + ".partial";
        ::unlink(file.partial_.c_str());
        file.fd_.reset(::open(file.partial_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
        if (!file.fd_)
            return fail_errno(errno, "cannot create {}", file.partial_);
        return file;
    }
    NewFile(NewFile&& other) noexcept = default;
    NewFile& operator=(NewFile&&) = delete;
    ~NewFile() {
        if (fd_)
            ::unlink(partial_.c_str());
    }

    [[nodiscard]] int fd() const { return fd_.get(); }
    [[nodiscard]] const std::string& path() const { return partial_; }
    // Syncs and renames it; the bytes it takes.
    [[nodiscard]] Result<std::uint64_t> keep() {
        struct stat status{};
        if (::fsync(fd()) < 0 || ::fstat(fd(), &status) < 0)
            return fail_errno(errno, "cannot sync {}", partial_);
        if (::rename(partial_.c_str(), path_.c_str()) < 0)
            return fail_errno(errno, "cannot rename {} to {}", partial_, path_);
        fd_.reset();
        TRY(sync_folder(folder_of(path_)));
        return static_cast<std::uint64_t>(status.st_blocks) * 512;
    }

  private:
    NewFile() = default;
    std::string path_;
    std::string partial_;
    Fd fd_;
};

// The new file first, then what the manifest says, the old file last: whenever this is killed, the
// snapshot has the file that its manifest names.
Result<> replace_memory(const SnapshotStore& snapshots, const Snapshot& snapshot, NewFile file,
                        const char* old_name, MemoryFile now) {
    const auto stored = TRY(file.keep());
    TRY(snapshots.note_whole(snapshot, stored, now));
    ::unlink(in(snapshot, old_name).c_str());
    return {};
}

Result<> check_compressible(const SnapshotStore& snapshots, const Snapshot& snapshot) {
    if (!snapshot.whole())
        return fail(
            "{} only holds pages of its own: make it whole first, with `masu snapshot "
            "collapse {}`",
            snapshot.name, snapshot.name);
    if (const auto above = TRY(snapshots.children_of(snapshot)); !above.empty())
        return fail(
            "{} builds on the memory file of {}: make it whole first, with `masu snapshot "
            "collapse`",
            fmt::join(above, ", "), snapshot.name);
    return {};
}

Result<> refuse_in_use(const Snapshot& snapshot) {
    const auto users = TRY(users_of(snapshot.name));
    if (!users.empty())
        return fail("the memory of {} is that of {}: end them first with `masu stop`",
                    snapshot.name, fmt::join(users, ", "));
    return {};
}

Result<> decompress(const SnapshotStore& snapshots, const Snapshot& snapshot) {
    const Interruptions interruptions;
    const auto from = TRY(open_compressed_memory(in(snapshot, snapshot::compressed_memory_name)));
    if (from.index.belongs_to != TRY(id_of_state(snapshot)))
        return fail("{} is the memory of another snapshot", from.path);
    auto file = TRY(NewFile::create(in(snapshot, snapshot::memory_name)));
    Progress progress("decompressing " + snapshot.name);
    progress.stage("memory", from.index.memory_bytes);
    std::ignore = TRY(decompress_memory(from, file.fd(), file.path(), [&](std::uint64_t done) {
        progress.update(done);
        return interruptions.check();
    }));
    return replace_memory(snapshots, snapshot, std::move(file), snapshot::compressed_memory_name,
                          MemoryFile::Plain);
}

Result<int> change(const std::string& name, MemoryFile wanted) {
    const auto snapshots = TRY(open_snapshot_store());
    const auto held = TRY(snapshots.hold(name, true));
    const auto snapshot = TRY(snapshots.find(name));
    if (snapshot.memory_file == wanted) {
        note(fmt::format("the memory of {} is {} already", name, to_string(wanted)));
        return 0;
    }
    TRY(refuse_in_use(snapshot));
    if (wanted == MemoryFile::Compressed)
        TRY(compress(snapshots, snapshot));
    else
        TRY(decompress(snapshots, snapshot));
    std::puts(name.c_str());
    return 0;
}

void add_change(CLI::App& group, Invocation& invocation, const std::string& verb,
                const std::string& description, const std::string& footer, MemoryFile wanted) {
    auto* command = group.add_subcommand(verb, description);
    auto name = std::make_shared<std::string>();
    command->add_option("snapshot", *name, "Name of the snapshot")
        ->type_name(snapshot_value)
        ->required();
    command->footer(footer);
    command->callback([name, wanted, &invocation] {
        invocation.run = [name, wanted] { return change(*name, wanted); };
    });
}

}  // namespace

Result<> compress(const SnapshotStore& snapshots, const Snapshot& snapshot) {
    TRY(check_compressible(snapshots, snapshot));
    const Interruptions interruptions;
    const auto path = in(snapshot, snapshot::memory_name);
    const Fd from(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!from)
        return fail_errno(errno, "cannot open the memory file {}", path);
    const auto id = TRY(id_of_state(snapshot));
    auto file = TRY(NewFile::create(in(snapshot, snapshot::compressed_memory_name)));
    Progress progress("compressing " + snapshot.name);
    progress.stage("memory", snapshot.memory_bytes);
    std::ignore =
        TRY(compress_memory(from.get(), file.fd(), file.path(), id, [&](std::uint64_t done) {
            progress.update(done);
            return interruptions.check();
        }));
    return replace_memory(snapshots, snapshot, std::move(file), snapshot::memory_name,
                          MemoryFile::Compressed);
}

void add_compress(CLI::App& group, Invocation& invocation) {
    add_change(group, invocation, "compress", "Keep a snapshot's memory compressed",
               "Pieces of 128 KiB, each compressed by itself (zstd), with a checksum for each.\n"
               "Needs room for both until it is done. Refused while VMs live on the snapshot.\n"
               "\n"
               "Example:\n"
               "  masu snapshot compress web-warm",
               MemoryFile::Compressed);
    add_change(group, invocation, "decompress", "Make a snapshot's memory a plain file again",
               "The fastest form to restore: VMs share its pages, and nothing has to be unpacked.\n"
               "\n"
               "Example:\n"
               "  masu snapshot decompress web-warm",
               MemoryFile::Plain);
}

}  // namespace masu::cli
