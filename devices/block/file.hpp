// A disk's file on the host: opened, checked and locked.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace masu::block {

// What tells one state of a file from another without reading it.
struct FileIdentity {
    std::uint64_t size = 0;      // bytes, as the host has it
    std::uint64_t mtime_ns = 0;  // last change of content; 0 for a block device, which keeps none
};

// A regular file or a block device. The lock (OFD: shared for readers, exclusive for a writer)
// lives as long as this does; a second writer is refused also within this process.
class File {
  public:
    struct Options {
        std::string path;
        bool read_only = false;
        bool direct = false;  // bypass the page cache where a request's alignment allows
    };
    // Each error is one sentence that names the disk, the cause and the remedy. `warnings` gets
    // what a person should know but what does not stop us.
    [[nodiscard]] static Result<File> open(const Options& options,
                                           std::vector<std::string>& warnings);

    File(File&&) noexcept = default;
    File& operator=(File&&) noexcept = default;
    ~File();

    [[nodiscard]] const std::string& path() const noexcept { return path_; }
    [[nodiscard]] std::uint64_t size() const noexcept { return size_; }  // multiple of 512
    [[nodiscard]] bool read_only() const noexcept { return read_only_; }
    [[nodiscard]] bool is_block_device() const noexcept { return block_device_; }
    [[nodiscard]] Result<FileIdentity> identity() const;
    // Asks the host for the size again.
    [[nodiscard]] Result<std::uint64_t> refresh_size();

    // fds()[0] is the file; with `direct`, fds()[1] goes through the page cache, for requests that
    // are not aligned as O_DIRECT wants. The kernel keeps both views coherent.
    [[nodiscard]] std::span<const int> fds() const noexcept { return {fds_, direct_ ? 2U : 1U}; }
    // Which of fds() serves this transfer.
    [[nodiscard]] unsigned pick(std::uint64_t offset,
                                std::span<const iovec> buffers) const noexcept;

  private:
    File() = default;
    [[nodiscard]] Result<> lock(std::vector<std::string>& warnings) const;
    [[nodiscard]] Result<> go_direct(std::vector<std::string>& warnings);

    std::string path_;
    Fd fd_;
    Fd buffered_;
    int fds_[2] = {-1, -1};
    std::uint64_t size_ = 0;
    std::uint64_t alignment_ = 512;  // of memory, offset and length for O_DIRECT
    bool read_only_ = false;
    bool block_device_ = false;
    bool direct_ = false;
};

}  // namespace masu::block
