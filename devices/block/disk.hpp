// A disk as virtio-blk sees it: sectors behind asynchronous requests, whatever stores them.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace masu::block {

inline constexpr std::uint64_t sector_size = 512;

enum class Op : std::uint8_t { Read, Write, Flush, Discard, WriteZeroes };

// One request. `offset` and `size` in bytes, multiples of sector_size and inside the disk (the
// caller has checked). `buffers` cover exactly `size` for Read and Write and are empty otherwise;
// the array itself and the memory behind it stay valid until completion.
struct Request {
    Op op = Op::Read;
    std::uint64_t offset = 0;
    std::uint64_t size = 0;
    std::span<const iovec> buffers;
    std::uint64_t token = 0;  // the caller's; comes back with the completion
    bool may_unmap = false;   // WriteZeroes: deallocating is fine
};

// error: 0, or a positive errno.
struct Completion {
    std::uint64_t token = 0;
    int error = 0;
};

// Not thread-safe: every call is made under the owning virtio device's mutex. The completion
// descriptor is watched by the event loop, whose handler takes that mutex and calls reap().
class Disk {
  public:
    virtual ~Disk() = default;

    [[nodiscard]] virtual std::uint64_t size() const noexcept = 0;  // bytes, multiple of 512
    [[nodiscard]] virtual bool read_only() const noexcept = 0;
    // Whoever is to have requests from now on makes here, on the event loop's thread, what submit()
    // would make on whichever thread calls it, which perhaps may not.
    virtual void wake() {}
    // Queues a request; nothing may happen before kick(). Never blocks for I/O unless the disk is
    // of the synchronous kind, which does the work here and reports it by reap().
    virtual void submit(const Request& request) = 0;
    // Starts everything submitted: one system call a batch.
    virtual void kick() = 0;
    // Appends finished requests to `done`; does not wait.
    virtual void reap(std::vector<Completion>& done) = 0;
    // Readable when reap() has something. Owned by the disk.
    [[nodiscard]] virtual int completion_fd() const noexcept = 0;
    // Waits until nothing is in flight, appending all completions.
    virtual void drain(std::vector<Completion>& done) = 0;
    // Looks at the size of the file again (it was resized); the new size.
    virtual Result<std::uint64_t> refresh_size() = 0;
};

// How to open a disk file. Refuses what is no regular file or block device; takes an OFD lock
// (shared when read-only, exclusive otherwise) and refuses what another process holds.
struct OpenOptions {
    std::string path;
    bool read_only = false;
    bool direct = false;      // O_DIRECT
    bool force_sync = false;  // no io_uring even where the host allows it
    std::string overlay;      // not empty: copy-on-write overlay file on top of path (as base),
                              // created when missing
    std::uint64_t overlay_size = 0;  // of the disk a new overlay makes; 0: as large as its base
    bool overlay_synced = true;      // a new overlay survives a crash of the host
    bool late_engine = false;        // made with the first request, on the thread that makes it
    std::function<void(const std::string&)> warn = {};  // then, as `warnings` are when it is opened
};
struct Opened {
    std::unique_ptr<Disk> disk;
    std::vector<std::string> warnings;  // e.g. size rounded down to a multiple of 512
    const char* engine = "";            // as Engine::name, for logs and inspect
};
[[nodiscard]] Result<Opened> open_disk(const OpenOptions& options);

}  // namespace masu::block
