// A raw disk image as it is written: holes where there are only zeros, and a checksum of it all.
#pragma once

#include <openssl/evp.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace masu::cli {

// SHA-256 over a disk's content.
class Sha256 {
  public:
    Sha256();
    void add(std::span<const std::byte> bytes);
    void add_zeros(std::uint64_t count);
    [[nodiscard]] std::string hex();  // the end; once

  private:
    struct Free {
        void operator()(EVP_MD_CTX* context) const { ::EVP_MD_CTX_free(context); }
    };
    std::unique_ptr<EVP_MD_CTX, Free> context_;
};

// Written from front to back. Errors name the file and, for a full disk, what to do.
class SparseFile {
  public:
    [[nodiscard]] static Result<SparseFile> create(const std::string& path);

    [[nodiscard]] Result<> write(std::span<const std::byte> bytes);
    [[nodiscard]] Result<> skip(std::uint64_t zeros);
    // Pads with zeros to a whole sector and syncs.
    [[nodiscard]] Result<> finish();

    [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
    [[nodiscard]] std::string sha256() { return hash_.hex(); }  // after finish(), once

  private:
    SparseFile(Fd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}
    [[nodiscard]] Result<> store(std::span<const std::byte> bytes, std::uint64_t offset) const;
    [[nodiscard]] std::unexpected<Error> failed(int error) const;

    Fd fd_;
    std::string path_;
    std::uint64_t size_ = 0;
    Sha256 hash_;
};

}  // namespace masu::cli
