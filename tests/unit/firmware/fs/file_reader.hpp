// A disk image in a file, which may be large and sparse.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "firmware/fs/block_reader.hpp"

namespace masu::firmware::test {

class FileReader final : public BlockReader {
  public:
    explicit FileReader(const std::string& path, std::uint32_t block_size = 512)
        : fd_(::open(path.c_str(), O_RDWR | O_CLOEXEC)), block_size_(block_size) {
        REQUIRE(fd_ >= 0);
        struct stat status{};
        REQUIRE(::fstat(fd_, &status) == 0);
        size_ = static_cast<std::uint64_t>(status.st_size);
    }
    ~FileReader() { ::close(fd_); }
    FileReader(const FileReader&) = delete;
    FileReader& operator=(const FileReader&) = delete;

    [[nodiscard]] std::uint32_t block_size() const noexcept override { return block_size_; }
    [[nodiscard]] std::uint64_t block_count() const noexcept override {
        return size_ / block_size_;
    }
    [[nodiscard]] Result<> read(std::uint64_t lba, std::span<std::byte> to) noexcept override {
        ++requests;
        largest = std::max(largest, to.size());
        if (!contains(*this, lba, to.size() / block_size_) || to.size() % block_size_ != 0)
            return fail(ErrorCode::Io, "outside the test's disk", lba);
        const auto got = ::pread(fd_, to.data(), to.size(), static_cast<off_t>(lba * block_size_));
        if (got != static_cast<ssize_t>(to.size()))
            return fail(ErrorCode::Io, "the test's image is short", lba);
        return {};
    }

    void store(std::uint64_t offset, std::span<const std::byte> bytes) {
        REQUIRE(::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset)) ==
                static_cast<ssize_t>(bytes.size()));
    }
    [[nodiscard]] std::vector<std::byte> load(std::uint64_t offset, std::size_t size) const {
        std::vector<std::byte> bytes(size);
        REQUIRE(::pread(fd_, bytes.data(), size, static_cast<off_t>(offset)) ==
                static_cast<ssize_t>(size));
        return bytes;
    }

    std::size_t requests = 0;
    std::size_t largest = 0;  // bytes

  private:
    int fd_;
    std::uint32_t block_size_;
    std::uint64_t size_;
};

}  // namespace masu::firmware::test
