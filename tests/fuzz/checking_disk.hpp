// A small disk in memory that traps when it is given a request it was promised never to get.
#pragma once

#include <cstddef>
#include <cstring>
#include <vector>

#include "base/fd.hpp"
#include "devices/block/disk.hpp"
#include "tests/fuzz/input.hpp"

namespace masu::fuzz {

class CheckingDisk final : public block::Disk {
  public:
    CheckingDisk(std::vector<std::byte>& content, bool read_only)
        : content_(content), read_only_(read_only) {}

    [[nodiscard]] std::uint64_t size() const noexcept override { return content_.size(); }
    [[nodiscard]] bool read_only() const noexcept override { return read_only_; }
    void submit(const block::Request& request) override {
        const bool data = request.op == block::Op::Read || request.op == block::Op::Write;
        if (request.op != block::Op::Flush) {
            require(request.size != 0 && request.size % block::sector_size == 0 &&
                    request.offset % block::sector_size == 0);
            require(request.offset <= size() && request.size <= size() - request.offset);
            require(request.op == block::Op::Read || !read_only_);
        }
        std::uint64_t at = request.offset;
        for (const auto& buffer : request.buffers) {
            require(data && buffer.iov_len <= request.offset + request.size - at);
            if (request.op == block::Op::Read)
                std::memcpy(buffer.iov_base, &content_[at], buffer.iov_len);
            else
                std::memcpy(&content_[at], buffer.iov_base, buffer.iov_len);
            at += buffer.iov_len;
        }
        require(!data || at == request.offset + request.size);
        if (request.op == block::Op::Discard || request.op == block::Op::WriteZeroes)
            std::memset(&content_[request.offset], 0, request.size);
        done_.push_back({request.token, 0});
    }
    void kick() override {
        if (!done_.empty())
            event_.signal();
    }
    void reap(std::vector<block::Completion>& done) override {
        event_.take();
        done.insert(done.end(), done_.begin(), done_.end());
        done_.clear();
    }
    [[nodiscard]] int completion_fd() const noexcept override { return event_.fd(); }
    void drain(std::vector<block::Completion>& done) override { reap(done); }
    Result<std::uint64_t> refresh_size() override { return size(); }

  private:
    std::vector<std::byte>& content_;
    bool read_only_;
    EventFd event_ = *EventFd::create();
    std::vector<block::Completion> done_;
};

}  // namespace masu::fuzz
