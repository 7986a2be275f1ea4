#include "vmm/snapshot/collapse.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <tuple>
#include <vector>

#include "base/atomic_file.hpp"
#include "base/bytes.hpp"
#include "base/file_bytes.hpp"
#include "vmm/snapshot/copy_file.hpp"
#include "vmm/snapshot/machine_state.hpp"
#include "vmm/snapshot/memory_file.hpp"
#include "vmm/snapshot/save.hpp"

namespace masu::snapshot {

namespace {

constexpr std::size_t chunk_size = 2 * MiB;

std::string in(const std::string& directory, const char* name) {
    return fmt::format("{}/{}", directory, name);
}

// What is laid over the file so far.
struct Layer {
    std::string path;  // of the own pages' memory file
    PageList list;
};

struct Link {
    SnapshotId id;
    std::uint64_t memory_bytes;
};

Result<Link> look_at(const std::string& directory) {
    SnapshotId id;
    const auto state = TRY(load_state(in(directory, state_name), &id));
    return Link{id, state.memory_bytes};
}

Result<Layer> read_layer(const std::string& directory, const Link& below) {
    auto list = TRY(
        load_page_list(in(directory, own_pages_name), PageListKind::OwnPages, below.memory_bytes));
    if (list.belongs_to != below.id)
        return fail("the pages of {} do not belong on the snapshot below: it was replaced",
                    directory);
    return Layer{in(directory, own_memory_name), std::move(list)};
}

Result<Fd> open_memory(const std::string& path, std::uint64_t size) {
    Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file)
        return fail_errno(errno, "cannot open the memory file {}", path);
    struct stat status{};
    if (::fstat(file.get(), &status) < 0 || static_cast<std::uint64_t>(status.st_size) != size)
        return fail("the memory file {} has not the {} bytes of the snapshot's machine", path,
                    size);
    return file;
}

Result<> read_all(int fd, std::span<std::byte> to, std::uint64_t offset, const std::string& path) {
    const auto got = read_at(fd, to, offset);
    if (!got || *got < to.size())
        return fail_errno(got ? EIO : got.error().os_errno, "cannot read {}", path);
    return {};
}

// A name that is unlinked unless it was renamed.
struct Unfinished {
    std::string path;
    ~Unfinished() {
        if (!path.empty())
            ::unlink(path.c_str());
    }
};

}  // namespace

Result<std::uint64_t> collapse(
    const std::string& directory, std::span<const std::string> below,
    const std::function<void(std::uint64_t done, std::uint64_t total)>& progress) {
    if (below.empty())
        return fail("{} has nothing to be merged with", directory);
    const auto base = TRY(look_at(below.front()));
    std::vector<Layer> layers;
    auto link = base;
    std::uint64_t total = 0;
    for (std::size_t i = 1; i <= below.size(); ++i) {
        const auto& path = i < below.size() ? below[i] : directory;
        layers.push_back(TRY(read_layer(path, link)));
        total += layers.back().list.pages() * guest_page;
        link = TRY(look_at(path));
    }
    const auto from = TRY(open_memory(in(below.front(), memory_name), base.memory_bytes));
    Unfinished unfinished{in(directory, "memory.partial")};
    ::unlink(unfinished.path.c_str());
    const Fd to(::open(unfinished.path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!to)
        return fail_errno(errno, "cannot create {}", unfinished.path);
    std::ignore = TRY(copy_content(from.get(), to.get(), unfinished.path));
    std::vector<std::byte> buffer(chunk_size);
    std::uint64_t done = 0;
    for (const auto& layer : layers) {
        const auto own = TRY(open_memory(layer.path, base.memory_bytes));
        for (const auto& run : layer.list.runs) {
            const auto end = (run.first + run.count) * guest_page;
            for (auto start = run.first * guest_page; start < end; start += chunk_size) {
                const auto part =
                    std::span(buffer).first(std::min<std::uint64_t>(chunk_size, end - start));
                TRY(read_all(own.get(), part, start, layer.path));
                std::ignore =
                    TRY(write_sparse(part, to.get(), start, Zeros::Hole, unfinished.path));
                done += part.size();
                progress(done, total);
            }
        }
    }
    TRY(sync_memory(to.get(), unfinished.path));
    struct stat status{};
    if (::fstat(to.get(), &status) < 0)
        return fail_errno(errno, "cannot look at {}", unfinished.path);
    const auto whole = in(directory, memory_name);
    if (::rename(unfinished.path.c_str(), whole.c_str()) < 0)
        return fail_errno(errno, "cannot rename {} to {}", unfinished.path, whole);
    unfinished.path.clear();
    TRY(sync_folder(directory));
    ::unlink(in(directory, own_pages_name).c_str());
    ::unlink(in(directory, own_memory_name).c_str());
    return static_cast<std::uint64_t>(status.st_blocks) * 512;
}

}  // namespace masu::snapshot
