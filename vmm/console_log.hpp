// The file that keeps a guest's serial output: appended to, and bounded by rotation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/bytes.hpp"
#include "base/fd.hpp"
#include "base/log.hpp"

namespace masu {

// One thread. A regular file that has reached the limit is renamed to PATH.1 (the former PATH.1 is
// lost) and begun anew; a FIFO or a device is only written to, and loses what it has no room for.
class ConsoleLog {
  public:
    static constexpr std::uint64_t default_limit = 10 * MiB;

    [[nodiscard]] static Result<ConsoleLog> open(const std::string& path, Log log,
                                                 std::uint64_t limit = default_limit);
    // Never fails as far as the caller can tell: a full disk is logged once and output goes on.
    void write(std::span<const std::byte> bytes);

  private:
    ConsoleLog(std::string path, Log log, std::uint64_t limit)
        : path_(std::move(path)), log_(std::move(log)), limit_(limit) {}
    [[nodiscard]] Result<> reopen();
    void complain(int error);

    std::string path_;
    Log log_;
    std::uint64_t limit_;
    Fd file_;
    std::uint64_t size_ = 0;
    bool regular_ = false;
    bool complained_ = false;
};

}  // namespace masu
