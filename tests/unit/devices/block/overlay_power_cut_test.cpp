// Power cuts: whatever part of the unflushed writes the host had made durable, every sector of an
// overlay is one that was written there, and what was flushed is never lost.
#include <doctest/doctest.h>

#include <map>
#include <set>

#include "base/bytes.hpp"
#include "devices/block/overlay_disk.hpp"
#include "tests/unit/devices/block/memory_disk.hpp"

using namespace masu;
using namespace masu::block;
using test::Bytes;
using test::HostEvent;

namespace {

constexpr std::uint64_t base_size = 20 * 4096 + 1536;
constexpr std::uint64_t disk_size = 30 * 4096 + 512;
constexpr std::uint64_t sectors = disk_size / sector_size;
constexpr BaseIdentity identity{base_size, 1, 2};

// A sector that says which write it came from; 0 is the base, and zeros are themselves.
constexpr unsigned zeros = ~0U;
Bytes sector_of(unsigned write, std::uint64_t sector) {
    Bytes bytes(sector_size);
    if (write == zeros || (write == 0 && sector >= base_size / sector_size))
        return bytes;
    for (std::size_t i = 0; i < sector_size; i += 8) {
        store_unaligned(&bytes[i], write + 0x5a000000U);
        store_unaligned(&bytes[i + 4], static_cast<std::uint32_t>(sector));
    }
    return bytes;
}

// One write of one sector, by positions in the host's log.
struct SectorWrite {
    unsigned value = 0;
    std::size_t started = 0;
    std::size_t ended = ~std::size_t{0};
};

// Runs random writes, zeroes and flushes with several in flight, on disjoint sectors.
class Guest {
  public:
    explicit Guest(unsigned seed) : random_(seed) {
        base_->content.resize(base_size);
        for (std::uint64_t sector = 0; sector < base_size / sector_size; ++sector)
            std::ranges::copy(sector_of(0, sector),
                              base_->content.begin() + static_cast<std::ptrdiff_t>(sector * 512));
        const auto header = make_overlay_header(disk_size, identity, "/base");
        store_->content.resize(OverlayLayout::of(disk_size).file_size);
        std::ranges::copy(as_bytes_of(header), store_->content.begin());
        initial_ = store_->content;
        store_->record = true;
        history_.resize(sectors, {SectorWrite{}});
    }

    std::unique_ptr<Disk> open(std::shared_ptr<test::HostFile> store) {
        auto disk = OverlayDisk::open(std::make_unique<test::MemoryDisk>(base_, random_(), true),
                                      identity, test::header_of(store->content),
                                      std::make_unique<test::MemoryDisk>(store, random_()), "o");
        REQUIRE(disk);
        return std::move(*disk);
    }

    void run(int operations) {
        auto disk = open(store_);
        std::vector<Completion> done;
        while (operations > 0 || !in_flight_.empty()) {
            while (operations > 0 && in_flight_.size() < 8 && random_() % 4 != 0) {
                issue(*disk);
                --operations;
            }
            disk->kick();
            done.clear();
            disk->reap(done);
            for (const auto& completion : done)
                finish(completion);
        }
        REQUIRE(read_all(*disk) == expected_now());
    }

    // Every way to lose power at `position` of the log that `tries` draws, checked.
    void cut(std::size_t position, int tries) {
        for (int i = 0; i < tries; ++i) {
            auto file = std::make_shared<test::HostFile>();
            file->content = after_cut(position, i);
            const auto disk = open(file);
            const auto content = read_all(*disk);
            for (std::uint64_t sector = 0; sector < sectors; ++sector) {
                const Bytes found(
                    content.begin() + static_cast<std::ptrdiff_t>(sector * 512),
                    content.begin() + static_cast<std::ptrdiff_t>(sector * 512 + 512));
                bool good = false;
                for (const auto value : acceptable(sector, position))
                    good = good || found == sector_of(value, sector);
                CAPTURE(position);
                CAPTURE(sector);
                REQUIRE(good);
            }
        }
    }
    [[nodiscard]] std::size_t log_size() const { return store_->log.size(); }
    [[nodiscard]] std::shared_ptr<test::HostFile> store() const { return store_; }

    Bytes expected_now() {
        Bytes bytes;
        for (std::uint64_t sector = 0; sector < sectors; ++sector) {
            const auto part = sector_of(history_[sector].back().value, sector);
            bytes.insert(bytes.end(), part.begin(), part.end());
        }
        return bytes;
    }
    static Bytes read_all(Disk& disk) { return test::read(disk, 0, disk_size); }

  private:
    struct Operation {
        Op op{};
        std::uint64_t first = 0;
        std::uint64_t count = 0;
        std::size_t started = 0;
        std::unique_ptr<Bytes> data;
        std::unique_ptr<iovec> buffer;
    };

    void issue(Disk& disk) {
        const auto token = next_token_++;
        Operation operation;
        operation.started = store_->log.size();
        if (random_() % 6 == 0) {
            operation.op = Op::Flush;
            disk.submit({.op = Op::Flush, .token = token});
            in_flight_.emplace(token, std::move(operation));
            return;
        }
        const auto kind = random_() % 8;
        operation.op = kind == 0 ? Op::WriteZeroes : kind == 1 ? Op::Discard : Op::Write;
        operation.first = random_() % sectors;
        operation.count = std::min<std::uint64_t>(1 + random_() % 30, sectors - operation.first);
        if (operation.op == Op::Discard) {
            operation.first = operation.first / 8 * 8;
            operation.count = 8;
            if (operation.first + operation.count > sectors)
                return;
        }
        for (const auto& [other, running] : in_flight_)
            if (running.first < operation.first + operation.count &&
                operation.first < running.first + running.count)
                return;
        const auto value = operation.op == Op::Write ? static_cast<unsigned>(token) : zeros;
        operation.data = std::make_unique<Bytes>();
        for (auto sector = operation.first; sector < operation.first + operation.count; ++sector) {
            history_[sector].push_back({value, operation.started});
            const auto part = sector_of(value, sector);
            operation.data->insert(operation.data->end(), part.begin(), part.end());
        }
        operation.buffer =
            std::make_unique<iovec>(iovec{operation.data->data(), operation.data->size()});
        const bool data = operation.op == Op::Write;
        disk.submit({.op = operation.op,
                     .offset = operation.first * sector_size,
                     .size = operation.count * sector_size,
                     .buffers = std::span<const iovec>(operation.buffer.get(), data ? 1 : 0),
                     .token = token,
                     .may_unmap = random_() % 2 == 0});
        in_flight_.emplace(token, std::move(operation));
    }

    void finish(const Completion& completion) {
        REQUIRE(completion.error == 0);
        const auto found = in_flight_.find(completion.token);
        REQUIRE(found != in_flight_.end());
        const auto& operation = found->second;
        if (operation.op == Op::Flush)
            flushes_.emplace_back(operation.started, store_->log.size());
        for (auto sector = operation.first; sector < operation.first + operation.count; ++sector)
            history_[sector].back().ended = store_->log.size();
        in_flight_.erase(found);
    }

    // Flushed writes in order, then of the others what `choice` says: none, all, or any sectors in
    // any order.
    Bytes after_cut(std::size_t position, int choice) {
        struct Write {
            const HostEvent* event;
            std::size_t ended = ~std::size_t{0};
        };
        std::map<std::size_t, Write> writes;
        std::map<std::size_t, std::size_t> flush_started;
        std::size_t flushed = 0;  // writes ended before this position are durable
        for (std::size_t i = 0; i < position; ++i) {
            const auto& event = store_->log[i];
            if (event.kind == HostEvent::Kind::WriteStart)
                writes[event.id] = {&event};
            else if (event.kind == HostEvent::Kind::WriteEnd)
                writes[event.id].ended = i;
            else if (event.kind == HostEvent::Kind::FlushStart)
                flush_started[event.id] = i;
            else if (event.kind == HostEvent::Kind::FlushEnd)
                flushed = std::max(flushed, flush_started[event.id]);
        }
        Bytes content = initial_;
        std::map<std::size_t, const HostEvent*> durable;  // by end
        std::vector<const HostEvent*> loose;
        for (const auto& [id, write] : writes) {
            if (write.ended < flushed)
                durable[write.ended] = write.event;
            else
                loose.push_back(write.event);
        }
        const auto put = [&](const HostEvent& event, bool torn) {
            for (std::size_t at = 0; at < event.data.size(); at += sector_size)
                if (!torn || random_() % 2 == 0)
                    std::copy_n(event.data.begin() + static_cast<std::ptrdiff_t>(at), sector_size,
                                content.begin() + static_cast<std::ptrdiff_t>(event.offset + at));
        };
        for (const auto& [ended, event] : durable)
            put(*event, false);
        if (choice == 0)
            return content;
        if (choice > 1)
            std::shuffle(loose.begin(), loose.end(), random_);
        for (const auto* event : loose)
            if (choice == 1 || random_() % 2 == 0)
                put(*event, choice > 1);
        return content;
    }

    // The last flushed value, and all that were under way or unflushed by then.
    std::set<unsigned> acceptable(std::uint64_t sector, std::size_t position) {
        std::size_t flushed = 0;
        for (const auto& [started, ended] : flushes_)
            if (ended <= position)
                flushed = std::max(flushed, started);
        std::set<unsigned> values{history_[sector].front().value};
        for (std::size_t i = 1; i < history_[sector].size(); ++i) {
            const auto& write = history_[sector][i];
            if (write.started > position)
                break;
            if (write.ended <= flushed)
                values.clear();
            values.insert(write.value);
        }
        return values;
    }

    std::mt19937 random_;
    std::shared_ptr<test::HostFile> base_ = std::make_shared<test::HostFile>();
    std::shared_ptr<test::HostFile> store_ = std::make_shared<test::HostFile>();
    Bytes initial_;
    std::vector<std::vector<SectorWrite>> history_;
    std::vector<std::pair<std::size_t, std::size_t>> flushes_;
    std::map<std::uint64_t, Operation> in_flight_;
    std::uint64_t next_token_ = 1;
};

}  // namespace

TEST_CASE("a power cut after any event leaves flushed data and no third state") {
    for (unsigned seed = 1; seed <= 6; ++seed) {
        CAPTURE(seed);
        Guest guest(seed);
        guest.run(80);
        for (std::size_t position = 0; position <= guest.log_size(); ++position)
            guest.cut(position, 4);
    }
}

TEST_CASE("a closed overlay holds everything, flushed or not") {
    for (unsigned seed = 100; seed < 120; ++seed) {
        CAPTURE(seed);
        Guest guest(seed);
        guest.run(60);
        const auto disk = guest.open(guest.store());
        CHECK(Guest::read_all(*disk) == guest.expected_now());
    }
}
