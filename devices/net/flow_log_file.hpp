// The file that flow logs go to: appended to, and put aside when it has grown.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace masu::net {

// PATH is the current file, PATH.1 the one before; what is older is gone. So twice `limit` bytes
// are taken at most, and a reader that follows PATH by name misses nothing. One thread.
class FlowLogFile {
  public:
    static constexpr std::uint64_t default_limit = 16ULL << 20;

    // Appends to what is there. Mode 0600.
    [[nodiscard]] static Result<FlowLogFile> open(std::string path,
                                                  std::uint64_t limit = default_limit);

    // Whole lines. What cannot be written is lost; the error says why.
    [[nodiscard]] Result<> write(std::string_view lines);

    [[nodiscard]] const std::string& path() const noexcept { return path_; }

  private:
    FlowLogFile(std::string path, std::uint64_t limit) : path_(std::move(path)), limit_(limit) {}
    [[nodiscard]] Result<> reopen();

    std::string path_;
    std::uint64_t limit_;
    Fd file_;
    std::uint64_t size_ = 0;
};

}  // namespace masu::net
