#include "tools/masu/restored_memory.hpp"

#include <linux/memfd.h>
#include <sys/mman.h>

#include <tuple>

#include "tools/masu/commands.hpp"
#include "tools/masu/compressed_memory.hpp"
#include "tools/masu/page_server.hpp"
#include "tools/masu/progress.hpp"
#include "vmm/snapshot/save.hpp"
#include "vmm/snapshot/served_memory.hpp"

namespace masu::cli {
namespace {

Result<Fd> unpack(const Snapshot& snapshot) {
    const Interruptions interruptions;
    const auto from = TRY(open_compressed_memory(
        fmt::format("{}/{}", snapshot.path, snapshot::compressed_memory_name)));
    Fd file(::memfd_create("snapshot-memory", MFD_CLOEXEC));
    if (!file)
        return fail_errno(errno, "cannot make a file in memory");
    Progress progress("unpacking " + snapshot.name);
    progress.stage("memory", from.index.memory_bytes);
    std::ignore = TRY(decompress_memory(from, file.get(), "memory", [&](std::uint64_t done) {
        progress.update(done);
        return interruptions.check();
    }));
    return file;
}

}  // namespace

Result<RestoredMemory> choose_memory(const Snapshot& snapshot) {
    RestoredMemory memory;
    if (snapshot.memory_file == MemoryFile::Plain)
        return memory;
    const auto faults = snapshot::open_userfaultfd();
    if (faults) {
        memory.way = RestoredMemory::Way::Served;
        return memory;
    }
    note(fmt::format("{}; the memory of {} is unpacked into this host's instead",
                     faults.error().message, snapshot.name));
    memory.way = RestoredMemory::Way::Unpacked;
    memory.unpacked = TRY(unpack(snapshot));
    return memory;
}

Result<MemoryBackend> prepare_memory(const RestoredMemory& memory, const Snapshot& snapshot,
                                     const VmRecord& record, const VmFolder& folder,
                                     bool working_set) {
    MemoryBackend backend;
    switch (memory.way) {
        case RestoredMemory::Way::Mapped:
            break;
        case RestoredMemory::Way::Served:
            backend.inherited = TRY(start_page_server(snapshot.path, record.pages_socket(),
                                                      folder.file("page-server.log"), working_set));
            backend.field = {{"backend_type", "Uffd"}, {"backend_path", record.pages_socket()}};
            break;
        case RestoredMemory::Way::Unpacked:
            backend.inherited = TRY(memory.unpacked.duplicate());
            backend.field = {
                {"backend_type", "File"},
                {"backend_path", fmt::format("/proc/self/fd/{}", backend.inherited.get())}};
            break;
    }
    return backend;
}

}  // namespace masu::cli
