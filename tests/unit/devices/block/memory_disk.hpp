// A disk in memory that completes out of order and writes down all that happens to it.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "base/bytes.hpp"
#include "base/fd.hpp"
#include "devices/block/disk.hpp"
#include "devices/block/overlay_format.hpp"
#include "tests/unit/devices/block/disk_io.hpp"

namespace masu::test {

// What a host file went through, in order; `id` pairs the start of a request with its end.
struct HostEvent {
    enum class Kind { WriteStart, WriteEnd, FlushStart, FlushEnd, Mark } kind;
    std::size_t id = 0;
    std::uint64_t offset = 0;
    Bytes data;
};

// That of an overlay with this content.
inline block::OverlayHeader header_of(const Bytes& overlay) {
    return load_unaligned<block::OverlayHeader>(overlay.data());
}

struct HostFile {
    Bytes content;
    bool record = false;
    std::vector<HostEvent> log;
    // Not null: the error of a request, 0 for none.
    std::function<int(const block::Request&)> failure;
};

class MemoryDisk final : public block::Disk {
  public:
    MemoryDisk(std::shared_ptr<HostFile> file, unsigned seed, bool read_only = false)
        : file_(std::move(file)), random_(seed), read_only_(read_only) {}

    [[nodiscard]] std::uint64_t size() const noexcept override { return file_->content.size(); }
    [[nodiscard]] bool read_only() const noexcept override { return read_only_; }
    void submit(const block::Request& request) override { submitted_.push_back(request); }
    void kick() override {
        for (const auto& request : submitted_)
            start(request);
        submitted_.clear();
        if (!in_flight_.empty())
            event_.signal();
    }
    // Finishes some of what is in flight, in any order.
    void reap(std::vector<block::Completion>& done) override {
        event_.take();
        std::shuffle(in_flight_.begin(), in_flight_.end(), random_);
        finish(done, in_flight_.size() - random_() % (in_flight_.size() + 1));
        if (!in_flight_.empty())
            event_.signal();
    }
    [[nodiscard]] int completion_fd() const noexcept override { return event_.fd(); }
    void drain(std::vector<block::Completion>& done) override {
        kick();
        std::shuffle(in_flight_.begin(), in_flight_.end(), random_);
        finish(done, in_flight_.size());
        event_.take();
    }
    Result<std::uint64_t> refresh_size() override { return size(); }

  private:
    struct Started {
        block::Request request;
        std::size_t id;
        Bytes data;
    };

    void start(const block::Request& request) {
        using Kind = HostEvent::Kind;
        Started started{request, next_id_++, {}};
        switch (request.op) {
            case block::Op::Read:
                break;
            case block::Op::Flush:
                note({Kind::FlushStart, started.id, 0, {}});
                break;
            case block::Op::Write:
                for (const auto& buffer : request.buffers) {
                    const auto* bytes = static_cast<const std::byte*>(buffer.iov_base);
                    started.data.insert(started.data.end(), bytes, bytes + buffer.iov_len);
                }
                CHECK(started.data.size() == request.size);
                note({Kind::WriteStart, started.id, request.offset, started.data});
                break;
            case block::Op::Discard:
            case block::Op::WriteZeroes:
                started.data.assign(request.size, std::byte{0});
                note({Kind::WriteStart, started.id, request.offset, started.data});
                break;
        }
        CHECK(request.offset + request.size <= size());
        in_flight_.push_back(std::move(started));
    }

    void finish(std::vector<block::Completion>& done, std::size_t count) {
        for (; count > 0; --count) {
            const auto started = std::move(in_flight_.back());
            in_flight_.pop_back();
            const int error = file_->failure ? file_->failure(started.request) : 0;
            if (error == 0)
                apply(started);
            done.push_back({started.request.token, error});
        }
    }

    void apply(const Started& started) {
        using Kind = HostEvent::Kind;
        auto at = file_->content.begin() + static_cast<std::ptrdiff_t>(started.request.offset);
        if (started.request.op == block::Op::Flush) {
            note({Kind::FlushEnd, started.id, 0, {}});
        } else if (started.request.op == block::Op::Read) {
            for (const auto& buffer : started.request.buffers) {
                std::memcpy(buffer.iov_base, &*at, buffer.iov_len);
                at += static_cast<std::ptrdiff_t>(buffer.iov_len);
            }
        } else {
            std::ranges::copy(started.data, at);
            note({Kind::WriteEnd, started.id, 0, {}});
        }
    }

    void note(HostEvent event) {
        if (file_->record)
            file_->log.push_back(std::move(event));
    }

    std::shared_ptr<HostFile> file_;
    std::mt19937 random_;
    bool read_only_;
    EventFd event_ = *EventFd::create();
    std::vector<block::Request> submitted_;
    std::vector<Started> in_flight_;
    std::size_t next_id_ = 0;
};

}  // namespace masu::test
