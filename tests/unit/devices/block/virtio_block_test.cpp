// virtio-blk against polite and rude drivers, on real files through both engines.
#include "devices/block/virtio_block.hpp"

#include <doctest/doctest.h>
#include <unistd.h>

#include "base/bytes.hpp"
#include "tests/unit/devices/block/disk_io.hpp"
#include "tests/unit/devices/block/temporary_file.hpp"
#include "tests/unit/devices/virtio/fake_driver.hpp"

using namespace masu;
using namespace masu::block;
using test::Bytes;
using virtio::fake::Built;

namespace {

struct Header {
    std::uint32_t type = 0;
    std::uint32_t reserved = 0;
    std::uint64_t sector = 0;
};
struct Range {
    std::uint64_t sector = 0;
    std::uint32_t sectors = 0;
    std::uint32_t flags = 0;
};
constexpr std::uint32_t in = 0, out = 1, flush = 4, get_id = 8, discard = 11, write_zeroes = 13;
constexpr std::uint8_t ok = 0, io_error = 1, unsupported = 2;

struct StillClock final : Clock {
    Nanoseconds time = 1;
    [[nodiscard]] Nanoseconds now() const noexcept override { return time; }
    [[nodiscard]] std::uint64_t wall() const noexcept override { return time; }
};

struct RecordingDriver final : virtio::Driver {
    std::vector<int> queue_interrupts = std::vector<int>(4);
    int config_interrupts = 0;
    std::vector<std::string> faults;
    void interrupt_queue(std::uint16_t queue) override { ++queue_interrupts[queue]; }
    void interrupt_config() override { ++config_interrupts; }
    void fault(std::string_view why) override { faults.emplace_back(why); }
};

constexpr auto all_features = ~std::uint64_t{0};

// A disk of 64 KiB behind one device, and the driver of it.
struct Bench {
    explicit Bench(bool force_sync = false, VirtioBlock::Options options = {},
                   std::uint64_t accept = all_features) {
        path = folder.file("disk", 64 * KiB);
        auto opened = open_disk({.path = path, .force_sync = force_sync});
        REQUIRE(opened);
        auto created = VirtioBlock::create("data", std::move(opened->disk), std::move(options),
                                           *loop, Log(), metrics, clock);
        REQUIRE(created);
        block = std::move(*created);
        activate(accept);
    }
    void activate(std::uint64_t accept = all_features) {
        rings.clear();
        virtio::Activation activation{.memory = &memory.guest(),
                                      .features = block->features() & accept,
                                      .queues = {},
                                      .driver = &driver};
        for (std::size_t i = 0; i < block->queue_sizes().size(); ++i) {
            rings.push_back(std::make_unique<virtio::fake::Ring>(memory, 64));
            activation.queues.emplace_back(rings.back()->make_queue());
        }
        const std::lock_guard lock(block->mutex());
        block->activate(std::move(activation));
    }
    virtio::fake::Ring& ring() { return *rings[0]; }
    void notify(std::uint16_t queue = 0) {
        const std::lock_guard lock(block->mutex());
        block->notify(queue);
    }
    void reset() {
        const std::lock_guard lock(block->mutex());
        block->reset();
    }
    // Until the device has used one more buffer of the queue.
    virtio::fake::UsedElement wait(std::size_t queue = 0) {
        for (int turns = 0; turns < 1000; ++turns) {
            if (const auto used = rings[queue]->take_used())
                return *used;
            loop->run_once(1000);
        }
        FAIL("the device did not answer");
        return {};
    }
    std::uint8_t status(const Built& built) {
        return static_cast<std::uint8_t>(ring().written(built).back());
    }
    // Submits one chain, waits, and returns the status byte.
    std::uint8_t answer(const Built& built) {
        notify();
        CHECK(wait().id == built.head);
        return status(built);
    }
    std::uint64_t metric(const std::string& name) {
        return metrics.counter("block_data", name).value();
    }
    std::uint64_t capacity() {
        std::uint64_t sectors = 0;
        block->read_config(0, std::as_writable_bytes(std::span(&sectors, 1)));
        return sectors;
    }

    test::TemporaryFolder folder;
    std::string path;
    std::unique_ptr<EventLoop> loop = *EventLoop::create();
    Metrics metrics;
    StillClock clock;
    RecordingDriver driver;
    virtio::fake::Memory memory;
    std::vector<std::unique_ptr<virtio::fake::Ring>> rings;
    std::unique_ptr<VirtioBlock> block;
};

Built write_chain(virtio::fake::Ring& ring, std::uint64_t sector, const Bytes& data) {
    return ring.chain()
        .append_readable(Header{out, 0, sector})
        .append_readable(std::span<const std::byte>(data))
        .append_writable(1)
        .build();
}

Built read_chain(virtio::fake::Ring& ring, std::uint64_t sector, std::uint32_t size) {
    return ring.chain()
        .append_readable(Header{in, 0, sector})
        .append_writable(size)
        .append_writable(1)
        .build();
}

Built range_chain(virtio::fake::Ring& ring, std::uint32_t type, const std::vector<Range>& ranges) {
    return ring.chain()
        .append_readable(Header{type, 0, 0})
        .append_readable(std::as_bytes(std::span(ranges)))
        .append_writable(1)
        .build();
}

}  // namespace

TEST_CASE("what is written is read back, through both engines") {
    for (const bool force_sync : {false, true}) {
        CAPTURE(force_sync);
        Bench bench(force_sync);
        const auto data = test::pattern(4096, 5);
        CHECK(bench.answer(write_chain(bench.ring(), 8, data)) == ok);
        CHECK(bench.answer(bench.ring()
                               .chain()
                               .append_readable(Header{flush, 0, 0})
                               .append_writable(1)
                               .build()) == ok);
        // Header, data and status may be cut up in any way (2.7.4.2).
        const Header header{in, 0, 8};
        const auto bytes = as_bytes_of(header);
        const auto split = bench.ring()
                               .chain()
                               .append_readable(bytes.first(3))
                               .append_readable(bytes.subspan(3))
                               .append_writable(1000)
                               .append_writable(3097)
                               .build();
        bench.notify();
        const auto used = bench.wait();
        CHECK(used.id == split.head);
        CHECK(used.length == 4097);
        auto expected = data;
        expected.push_back(std::byte{ok});
        CHECK(bench.ring().written(split) == expected);
        CHECK(bench.metric("read_bytes") == 4096);
        CHECK(bench.metric("write_count") == 1);
        CHECK(bench.metric("flush_count") == 1);
        CHECK(bench.driver.faults.empty());
    }
}

TEST_CASE("many requests over two queues, in one notification each") {
    for (const bool force_sync : {false, true}) {
        Bench bench(force_sync, {.num_queues = 2});
        std::vector<Built> writes;
        for (std::uint64_t i = 0; i < 20; ++i)
            for (auto& ring : bench.rings)
                writes.push_back(write_chain(*ring, i, Bytes(512, static_cast<std::byte>(i + 1))));
        bench.notify(0);
        bench.notify(1);
        for (std::uint64_t i = 0; i < 20; ++i) {
            bench.wait(0);
            bench.wait(1);
        }
        for (const auto& built : writes)
            CHECK(bench.status(built) == ok);
        CHECK(bench.driver.queue_interrupts[0] > 0);
        CHECK(bench.driver.queue_interrupts[1] > 0);
        const auto check = read_chain(bench.ring(), 0, 20 * 512);
        CHECK(bench.answer(check) == ok);
        CHECK(bench.ring().written(check)[19 * 512] == std::byte{20});
    }
}

TEST_CASE("the serial number, whole and cut short") {
    Bench bench(false, {.serial = "vol-0123456789abcdef"});
    const auto whole = bench.ring()
                           .chain()
                           .append_readable(Header{get_id, 0, 0})
                           .append_writable(20)
                           .append_writable(1)
                           .build();
    CHECK(bench.answer(whole) == ok);
    const auto bytes = bench.ring().written(whole);
    CHECK(std::string(reinterpret_cast<const char*>(bytes.data()), 20) == "vol-0123456789abcdef");
    const auto cut =
        bench.ring().chain().append_readable(Header{get_id, 0, 0}).append_writable(4).build();
    CHECK(bench.answer(cut) == ok);
    CHECK(bench.ring().written(cut)[2] == std::byte{'l'});
}

TEST_CASE("rude requests are answered with an error, and the device goes on") {
    Bench bench;
    auto& ring = bench.ring();
    const auto sector = Bytes(512, std::byte{1});
    CHECK(bench.answer(read_chain(ring, 0, 511)) == io_error);
    CHECK(bench.answer(read_chain(ring, 0, 513)) == io_error);
    CHECK(bench.answer(read_chain(ring, 127, 1024)) == io_error);
    CHECK(bench.answer(read_chain(ring, 128, 512)) == io_error);
    CHECK(bench.answer(read_chain(ring, ~std::uint64_t{0}, 512)) == io_error);
    CHECK(bench.answer(read_chain(ring, std::uint64_t{1} << 55, 512)) == io_error);
    CHECK(bench.answer(write_chain(ring, 127, Bytes(1024))) == io_error);
    CHECK(bench.answer(write_chain(ring, 0, Bytes(100))) == io_error);
    // A header too long: data where a read has none.
    CHECK(bench.answer(ring.chain()
                           .append_readable(Header{in, 0, 0})
                           .append_readable(std::uint32_t{0})
                           .append_writable(513)
                           .build()) == io_error);
    CHECK(bench.answer(ring.chain().append_readable(Header{99, 0, 0}).append_writable(1).build()) ==
          unsupported);
    CHECK(bench.answer(ring.chain()
                           .append_readable(Header{~0U, 0, 0})
                           .append_readable(std::span<const std::byte>(sector))
                           .append_writable(7)
                           .build()) == unsupported);
    CHECK(bench.metric("bad_requests") == 11);
    CHECK(bench.driver.faults.empty());
    CHECK(bench.answer(write_chain(ring, 127, sector)) == ok);
}

TEST_CASE("a chain that cannot be answered needs a reset, after which all is well") {
    for (const bool no_status : {false, true}) {
        Bench bench;
        if (no_status)
            bench.ring().chain().append_readable(Header{in, 0, 0}).build();
        else
            bench.ring().chain().append_readable(std::uint64_t{0}).append_writable(1).build();
        write_chain(bench.ring(), 0, Bytes(512, std::byte{9}));
        bench.notify();
        bench.notify();
        CHECK(bench.driver.faults.size() == 1);
        CHECK_FALSE(bench.ring().take_used());
        bench.reset();
        bench.activate();
        CHECK(bench.answer(read_chain(bench.ring(), 0, 512)) == ok);
    }
}

TEST_CASE("a read-only disk refuses to be changed") {
    Bench bench(false, {.read_only = true});
    CHECK((bench.block->features() & feature::read_only) != 0);
    CHECK((bench.block->features() & feature::discard) == 0);
    CHECK(bench.answer(write_chain(bench.ring(), 0, Bytes(512))) == io_error);
    CHECK(bench.answer(range_chain(bench.ring(), discard, {{0, 8, 0}})) == unsupported);
    CHECK(bench.answer(read_chain(bench.ring(), 0, 512)) == ok);
}

TEST_CASE("discard and write zeroes") {
    for (const bool force_sync : {false, true}) {
        Bench bench(force_sync);
        auto& ring = bench.ring();
        REQUIRE(bench.answer(write_chain(ring, 0, Bytes(16 * KiB, std::byte{1}))) == ok);
        CHECK(bench.answer(range_chain(ring, write_zeroes, {{1, 1, 0}, {4, 2, 1}, {9, 0, 0}})) ==
              ok);
        const auto check = read_chain(ring, 0, 8 * 512);
        CHECK(bench.answer(check) == ok);
        const auto bytes = ring.written(check);
        for (const unsigned sector : {0U, 1U, 2U, 3U, 4U, 5U, 6U, 7U})
            CHECK(bytes[sector * 512 + 511] ==
                  std::byte{sector != 1 && sector != 4 && sector != 5});
        CHECK(bench.answer(range_chain(ring, discard, {{8, 8, 0}})) == ok);

        CHECK(bench.answer(range_chain(ring, discard, {{0, 8, 1}})) == unsupported);
        CHECK(bench.answer(range_chain(ring, write_zeroes, {{0, 8, 2}})) == unsupported);
        CHECK(bench.answer(range_chain(ring, discard, {{127, 2, 0}})) == io_error);
        CHECK(bench.answer(range_chain(ring, discard, {{~std::uint64_t{0}, 1, 0}})) == io_error);
        CHECK(bench.answer(range_chain(ring, write_zeroes, {{0, ~0U, 0}})) == io_error);
        CHECK(bench.answer(range_chain(ring, discard, {})) == io_error);
        CHECK(bench.answer(range_chain(ring, discard, std::vector<Range>(17))) == io_error);
        CHECK(bench.answer(range_chain(ring, discard, std::vector<Range>(16))) == ok);
        CHECK(bench.answer(ring.chain()
                               .append_readable(Header{discard, 0, 0})
                               .append_readable(Range{0, 8, 0})
                               .append_readable(std::uint8_t{0})
                               .append_writable(1)
                               .build()) == io_error);
        CHECK(bench.metric("discard_count") == 1);
    }
}

TEST_CASE("features not negotiated are not there") {
    Bench bench(false, {}, ~(feature::discard | feature::write_zeroes | feature::flush));
    CHECK(bench.answer(range_chain(bench.ring(), discard, {{0, 8, 0}})) == unsupported);
    CHECK(bench.answer(range_chain(bench.ring(), write_zeroes, {{0, 8, 0}})) == unsupported);
}

namespace {

// Completes at once and counts flushes.
class CountingDisk final : public Disk {
  public:
    explicit CountingDisk(int& flushes) : flushes_(flushes) {}
    [[nodiscard]] std::uint64_t size() const noexcept override { return 64 * KiB; }
    [[nodiscard]] bool read_only() const noexcept override { return false; }
    void submit(const Request& request) override {
        flushes_ += request.op == Op::Flush ? 1 : 0;
        done_.push_back({request.token, 0});
    }
    void kick() override {
        if (!done_.empty())
            event_.signal();
    }
    void reap(std::vector<Completion>& done) override {
        event_.take();
        done.insert(done.end(), done_.begin(), done_.end());
        done_.clear();
    }
    [[nodiscard]] int completion_fd() const noexcept override { return event_.fd(); }
    void drain(std::vector<Completion>& done) override { reap(done); }
    Result<std::uint64_t> refresh_size() override { return size(); }

  private:
    int& flushes_;
    EventFd event_ = *EventFd::create();
    std::vector<Completion> done_;
};

int flushes_after_write(VirtioBlock::Cache cache, std::uint64_t accept) {
    Bench bench(false, {.cache = cache}, accept);
    int flushes = 0;
    REQUIRE(bench.block->swap_disk(std::make_unique<CountingDisk>(flushes)));
    CHECK(bench.answer(write_chain(bench.ring(), 0, Bytes(512))) == ok);
    return flushes;
}

}  // namespace

TEST_CASE("a driver that does not know FLUSH gets write-through, and an unsafe cache nothing") {
    CHECK(flushes_after_write(VirtioBlock::Cache::Writeback, all_features) == 0);
    CHECK(flushes_after_write(VirtioBlock::Cache::Writeback, ~feature::flush) == 1);
    CHECK(flushes_after_write(VirtioBlock::Cache::Unsafe, ~feature::flush) == 0);
}

TEST_CASE("a queue reset with I/O in flight leaves guest memory alone") {
    for (const bool force_sync : {false, true}) {
        Bench bench(force_sync);
        REQUIRE(bench.answer(write_chain(bench.ring(), 0, Bytes(64 * KiB, std::byte{1}))) == ok);
        for (int round = 0; round < 20; ++round) {
            for (std::uint64_t i = 0; i < 16; ++i)
                read_chain(bench.ring(), i, 4096);
            bench.notify();
            bench.reset();
            const auto after = bench.memory.bytes();
            const Bytes before(after.begin(), after.end());
            bench.loop->run_once(0);
            CHECK(std::ranges::equal(before, bench.memory.bytes()));
            std::ranges::fill(bench.memory.bytes(), std::byte{0});
            bench.memory.rewind(0);
            bench.activate();
        }
        CHECK(bench.answer(read_chain(bench.ring(), 0, 512)) == ok);
    }
}

TEST_CASE("growth and another disk are told to the guest") {
    Bench bench;
    CHECK(bench.capacity() == 128);
    REQUIRE(::truncate(bench.path.c_str(), 128 * KiB) == 0);
    CHECK(*bench.block->refresh_size() == 128 * KiB);
    CHECK(bench.driver.config_interrupts == 1);
    CHECK(bench.capacity() == 256);
    CHECK(*bench.block->refresh_size() == 128 * KiB);
    CHECK(bench.driver.config_interrupts == 1);
    CHECK(bench.answer(write_chain(bench.ring(), 255, Bytes(512, std::byte{3}))) == ok);

    const auto other = bench.folder.file("other", 4096);
    auto opened = open_disk({.path = other});
    REQUIRE(opened);
    REQUIRE(bench.block->swap_disk(std::move(opened->disk)));
    CHECK(bench.driver.config_interrupts == 2);
    CHECK(bench.capacity() == 8);
    CHECK(bench.answer(write_chain(bench.ring(), 255, Bytes(512))) == io_error);
    CHECK(bench.answer(write_chain(bench.ring(), 7, Bytes(512))) == ok);
    CHECK(open_disk({.path = bench.path}));  // the old one is closed
    auto fixed = open_disk({.path = bench.path, .read_only = true});
    REQUIRE(fixed);
    CHECK_FALSE(bench.block->swap_disk(std::move(fixed->disk)));
}

TEST_CASE("requests over the rate limit wait in order and go on when there is room") {
    Bench bench(false,
                {.limits = {.bytes = std::nullopt, .ops = TokenBucketLimit{2, 1'000'000, 0}}});
    std::vector<Built> built;
    for (std::uint64_t i = 0; i < 6; ++i)
        built.push_back(write_chain(bench.ring(), 0, Bytes(512, static_cast<std::byte>(i))));
    bench.notify();
    bench.wait();
    bench.wait();
    for (int i = 0; i < 3; ++i)
        bench.loop->run_once(5);  // the timer fires, but the clock stands still
    CHECK_FALSE(bench.ring().take_used());
    CHECK(bench.metric("throttled") == 1);
    bench.clock.time += 1'000'000;
    CHECK(bench.wait().id == built[2].head);
    CHECK(bench.wait().id == built[3].head);
    bench.loop->run_once(5);
    CHECK_FALSE(bench.ring().take_used());
    bench.block->update_limits({.bytes = std::nullopt, .ops = TokenBucketLimit{}});
    bench.wait();
    bench.wait();
    CHECK(bench.metric("write_count") == 6);
}

TEST_CASE("configuration space: every width and offset, and nothing beyond it") {
    Bench bench(false, {.num_queues = 3});
    for (std::uint64_t offset = 0; offset < 80; ++offset) {
        std::array<std::byte, 8> wide{};
        bench.block->read_config(offset, wide);
        for (std::uint64_t i = 0; i < 8; ++i) {
            std::byte one{0xee};
            bench.block->read_config(offset + i, {&one, 1});
            CHECK(one == wide[i]);
            if (offset + i >= 60)
                CHECK(one == std::byte{0});
        }
    }
    std::uint16_t queues = 0;
    bench.block->read_config(34, std::as_writable_bytes(std::span(&queues, 1)));
    CHECK(queues == 3);
    std::array<std::byte, 8> far{};
    bench.block->read_config(~std::uint64_t{0} - 3, far);
    CHECK(far == std::array<std::byte, 8>{});
}
