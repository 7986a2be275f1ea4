// The split virtqueue against polite and rude drivers.
#include "devices/virtio/queue.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <tuple>
#include <vector>

#include "tests/unit/devices/virtio/fake_driver.hpp"

namespace masu::virtio {
namespace {

using fake::desc_indirect;
using fake::desc_next;
using fake::desc_write;

std::string text_of(std::span<const iovec> segments) {
    std::string text;
    for (const auto& segment : segments)
        text.append(static_cast<const char*>(segment.iov_base), segment.iov_len);
    return text;
}

// The one chain that must be there.
Chain pop_one(Queue& queue) {
    auto popped = queue.pop();
    REQUIRE(popped.has_value());
    REQUIRE(popped->has_value());
    return std::move(**popped);
}

void check_empty(Queue& queue) {
    const auto popped = queue.pop();
    REQUIRE(popped.has_value());
    CHECK_FALSE(popped->has_value());
}

// The fault, now and ever after.
void check_fault(Queue& queue, QueueFault fault) {
    for (int i = 0; i < 2; ++i) {
        const auto popped = queue.pop();
        REQUIRE_FALSE(popped.has_value());
        CHECK(popped.error() == fault);
    }
    CHECK_FALSE(queue.enable_notifications());
}

struct Fixture {
    fake::Memory memory;
    fake::Ring ring{memory, 8, feature_version_1 | feature_indirect_desc};
    Queue queue = ring.make_queue();
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "a chain comes out as the driver built it") {
    check_empty(queue);
    const auto built =
        ring.chain().append_readable("head").append_readable("er").append_writable(6).build();
    auto chain = pop_one(queue);
    CHECK(chain.head() == built.head);
    CHECK(text_of(chain.readable()) == "header");
    CHECK(chain.readable_size() == 6);
    CHECK(chain.writable().size() == 1);
    CHECK(chain.writable_size() == 6);
    check_empty(queue);

    CHECK(chain.write(0, std::as_bytes(std::span("answer", 6))) == 6);
    queue.complete(std::move(chain), 6);
    const auto used = ring.take_used();
    REQUIRE(used);
    CHECK(used->id == built.head);
    CHECK(used->length == 6);
    const auto written = ring.written(built);
    CHECK(std::memcmp(written.data(), "answer", 6) == 0);
    CHECK_FALSE(ring.take_used());
}

TEST_CASE_FIXTURE(Fixture, "reads and writes cross segments and stop at the end") {
    const auto built = ring.chain()
                           .append_readable("abc")
                           .append_readable("defg")
                           .append_writable(2)
                           .append_writable(3)
                           .build();
    auto chain = pop_one(queue);
    std::array<std::byte, 16> out{};
    CHECK(chain.read(2, std::span(out).first(3)) == 3);
    CHECK(std::memcmp(out.data(), "cde", 3) == 0);
    CHECK(chain.read(5, out) == 2);
    CHECK(std::memcmp(out.data(), "fg", 2) == 0);
    CHECK(chain.read(7, out) == 0);
    CHECK(chain.read(~0ULL, out) == 0);
    CHECK(chain.write(1, std::as_bytes(std::span("wxyz!", 5))) == 4);
    CHECK(chain.write(5, std::as_bytes(std::span("w", 1))) == 0);
    const auto written = ring.written(built);
    CHECK(std::memcmp(written.data(), "\0wxyz", 5) == 0);
}

TEST_CASE_FIXTURE(Fixture, "an indirect chain reads like a direct one") {
    ring.chain()
        .append_readable("one")
        .append_readable("two")
        .append_writable(9)
        .indirect()
        .build();
    const auto chain = pop_one(queue);
    CHECK(text_of(chain.readable()) == "onetwo");
    CHECK(chain.writable_size() == 9);
}

TEST_CASE_FIXTURE(Fixture, "descriptors may lead to an indirect table, which ends the chain") {
    const auto data = memory.allocate(4);
    const auto table = memory.allocate(16);
    memory.put(table, fake::Descriptor{.address = data.value, .length = 4, .flags = desc_write});
    memory.put(data, std::uint32_t{0x64636261});
    ring.put_descriptor(0, {.address = data.value, .length = 4, .flags = desc_next, .next = 1});
    ring.put_descriptor(1, {.address = table.value, .length = 16, .flags = desc_indirect});
    ring.make_available(0);
    const auto chain = pop_one(queue);
    CHECK(text_of(chain.readable()) == "abcd");
    CHECK(chain.writable_size() == 4);
}

TEST_CASE_FIXTURE(Fixture, "zero-length descriptors count for nothing") {
    ring.chain()
        .append_readable("a")
        .append_raw({~0ULL}, 0, 0)
        .append_raw({0}, 0, desc_write)
        .append_writable(1)
        .build();
    const auto chain = pop_one(queue);
    CHECK(chain.readable().size() == 1);
    CHECK(chain.writable().size() == 1);
    CHECK(chain.readable_size() == 1);
    CHECK(chain.writable_size() == 1);
}

TEST_CASE_FIXTURE(Fixture, "a chain of nothing but zero-length descriptors can be completed") {
    const auto built = ring.chain().append_raw({0}, 0, desc_write).build();
    auto chain = pop_one(queue);
    CHECK(chain.readable().empty());
    CHECK(chain.writable().empty());
    queue.complete(std::move(chain), 0);
    CHECK(ring.take_used()->id == built.head);
}

TEST_CASE_FIXTURE(Fixture, "chains may be completed in any order") {
    const auto first = ring.chain().append_writable(1).build();
    const auto second = ring.chain().append_writable(1).build();
    auto a = pop_one(queue);
    auto b = pop_one(queue);
    queue.complete(std::move(b), 1);
    queue.complete(std::move(a), 0);
    CHECK(ring.take_used()->id == second.head);
    CHECK(ring.take_used()->id == first.head);
}

TEST_CASE("the 16-bit indices wrap with every queue size") {
    for (const std::uint16_t size : std::array<std::uint16_t, 4>{1, 2, 8, 1024}) {
        CAPTURE(size);
        fake::Memory memory;
        fake::Ring ring(memory, size, feature_version_1);
        auto queue = ring.make_queue();
        const auto mark = memory.mark();
        for (unsigned i = 0; i < 70000; ++i) {
            memory.rewind(mark);
            const auto built = ring.chain().append_readable(i).build();
            auto chain = pop_one(queue);
            unsigned value = 0;
            chain.read(0, std::as_writable_bytes(std::span(&value, 1)));
            REQUIRE(value == i);
            queue.complete(std::move(chain), i);
            const auto used = ring.take_used();
            REQUIRE(used);
            REQUIRE(used->id == built.head);
            REQUIRE(used->length == i);
        }
        CHECK(queue.next_avail() == static_cast<std::uint16_t>(70000));
        CHECK(queue.next_used() == static_cast<std::uint16_t>(70000));
    }
}

TEST_CASE("the queue's set-up is checked") {
    fake::Memory memory;
    const fake::Ring ring(memory, 8);
    const auto refused = [&](auto change) {
        auto config = ring.config();
        change(config);
        const auto queue = Queue::create(memory.guest(), config, 0);
        REQUIRE_FALSE(queue.has_value());
        return queue.error();
    };
    CHECK(Queue::create(memory.guest(), ring.config(), 0).has_value());
    for (const std::uint16_t size : std::array<std::uint16_t, 6>{0, 3, 7, 1025, 2048, 65535})
        CHECK(refused([&](auto& c) { c.size = size; }) == QueueFault::BadSize);
    CHECK(refused([](auto& c) { c.desc_table.value += 8; }) == QueueFault::BadAddress);
    CHECK(refused([](auto& c) { c.avail.value += 1; }) == QueueFault::BadAddress);
    CHECK(refused([](auto& c) { c.used.value += 2; }) == QueueFault::BadAddress);
    for (const std::uint64_t address : {0ULL, ~0ULL - 15, 1ULL << 52}) {
        CHECK(refused([&](auto& c) { c.desc_table.value = address; }) == QueueFault::BadAddress);
        CHECK(refused([&](auto& c) { c.avail.value = address; }) == QueueFault::BadAddress);
        CHECK(refused([&](auto& c) { c.used.value = address; }) == QueueFault::BadAddress);
    }
}

TEST_CASE("a ring must lie in RAM to its last byte, the event word included") {
    fake::Memory memory;
    const fake::Ring ring(memory, 8);
    struct Part {
        GuestAddress QueueConfig::* address;
        std::uint64_t size;
        std::uint64_t alignment;
    };
    for (const auto& [address, size, alignment] :
         {Part{&QueueConfig::desc_table, 128, 16}, Part{&QueueConfig::avail, 22, 2},
          Part{&QueueConfig::used, 70, 4}}) {
        auto config = ring.config();
        config.*address = {align_down(memory.end().value - size, alignment)};
        CHECK(Queue::create(memory.guest(), config, 0).has_value());
        config.*address = config.*address + alignment;
        CHECK_FALSE(Queue::create(memory.guest(), config, 0).has_value());
    }
}

TEST_CASE_FIXTURE(Fixture, "an avail index that jumps beyond the queue is a fault") {
    ring.set_avail_index(9);
    CHECK(queue.enable_notifications());
    check_fault(queue, QueueFault::BadIndex);
    ring.set_avail_index(0);
    check_fault(queue, QueueFault::BadIndex);
}

TEST_CASE_FIXTURE(Fixture, "an avail index that goes backwards is a fault") {
    ring.set_avail_index(0xffff);
    check_fault(queue, QueueFault::BadIndex);
}

TEST_CASE_FIXTURE(Fixture, "a head beyond the table is a fault") {
    ring.make_available(8);
    check_fault(queue, QueueFault::BadIndex);
}

TEST_CASE_FIXTURE(Fixture, "a head that is in flight cannot be made available again") {
    const auto built = ring.chain().append_writable(1).build();
    auto chain = pop_one(queue);
    ring.make_available(built.head);
    check_fault(queue, QueueFault::BadIndex);
    // What is in flight may still be finished.
    queue.complete(std::move(chain), 1);
    CHECK(ring.take_used()->id == built.head);
}

TEST_CASE_FIXTURE(Fixture, "a completed head may be used again") {
    const auto built = ring.chain().append_writable(1).build();
    queue.complete(pop_one(queue), 0);
    ring.make_available(built.head);
    CHECK(pop_one(queue).head() == built.head);
}

TEST_CASE_FIXTURE(Fixture, "a next index beyond the table is a fault") {
    const auto data = memory.allocate(1);
    ring.put_descriptor(0, {.address = data.value, .length = 1, .flags = desc_next, .next = 8});
    ring.make_available(0);
    check_fault(queue, QueueFault::BadIndex);
}

TEST_CASE_FIXTURE(Fixture, "a loop is a fault") {
    const auto data = memory.allocate(1);
    ring.put_descriptor(0, {.address = data.value, .length = 1, .flags = desc_next, .next = 1});
    ring.put_descriptor(1, {.address = data.value, .length = 1, .flags = desc_next, .next = 0});
    ring.make_available(0);
    check_fault(queue, QueueFault::ChainTooLong);
}

TEST_CASE_FIXTURE(Fixture, "a chain as long as the queue is none") {
    auto builder = ring.chain();
    for (int i = 0; i < 8; ++i)
        builder.append_readable("x");
    builder.build();
    CHECK(pop_one(queue).readable().size() == 8);
}

TEST_CASE_FIXTURE(Fixture, "a loop of zero-length descriptors ends as well") {
    ring.put_descriptor(0, {.flags = desc_next, .next = 0});
    ring.make_available(0);
    check_fault(queue, QueueFault::ChainTooLong);
}

TEST_CASE_FIXTURE(Fixture, "a readable descriptor after a writable one is a fault") {
    SUBCASE("direct") {
        ring.chain().append_writable(1).append_readable("a").build();
    }
    SUBCASE("indirect") {
        ring.chain().append_writable(1).append_readable("a").indirect().build();
    }
    SUBCASE("of zero length") {
        ring.chain().append_writable(1).append_raw({0}, 0, 0).build();
    }
    check_fault(queue, QueueFault::WritableFirst);
}

TEST_CASE_FIXTURE(Fixture, "buffers outside RAM are faults") {
    SUBCASE("below") {
        ring.chain().append_raw({0}, 1, 0).build();
    }
    SUBCASE("just beyond") {
        ring.chain().append_raw(memory.end(), 1, desc_write).build();
    }
    SUBCASE("across the end") {
        ring.chain().append_raw({memory.end().value - 4}, 5, desc_write).build();
    }
    SUBCASE("wrapping") {
        ring.chain().append_raw({~0ULL}, 2, 0).build();
    }
    SUBCASE("the longest") {
        ring.chain().append_raw({fake::Memory::base}, ~0U, 0).build();
    }
    check_fault(queue, QueueFault::BadAddress);
}

TEST_CASE_FIXTURE(Fixture, "malformed indirect tables are faults") {
    const auto data = memory.allocate(16);
    const auto table = memory.allocate(64);
    const auto point_at_table = [&](std::uint32_t length, unsigned flags = desc_indirect) {
        ring.put_descriptor(0, {.address = table.value,
                                .length = length,
                                .flags = static_cast<std::uint16_t>(flags),
                                .next = 1});
        ring.make_available(0);
    };
    const auto fill = [&](std::uint16_t flags, std::uint16_t next) {
        for (unsigned i = 0; i < 4; ++i)
            memory.put(
                table + 16ULL * i,
                fake::Descriptor{.address = data.value, .length = 1, .flags = flags, .next = next});
    };
    auto fault = QueueFault::BadIndirect;
    SUBCASE("empty") {
        point_at_table(0);
    }
    SUBCASE("no multiple of 16") {
        point_at_table(17);
    }
    SUBCASE("absurd") {
        point_at_table(16 * (max_chain_length + 1));
    }
    SUBCASE("with a successor") {
        point_at_table(16, desc_indirect | desc_next);
    }
    SUBCASE("nested") {
        fill(desc_indirect, 0);
        point_at_table(16);
    }
    SUBCASE("next beyond the table") {
        fill(desc_next, 4);
        point_at_table(64);
    }
    SUBCASE("looping") {
        fill(desc_next, 1);
        point_at_table(64);
        fault = QueueFault::ChainTooLong;
    }
    SUBCASE("outside RAM") {
        ring.put_descriptor(
            0, {.address = memory.end().value - 16, .length = 32, .flags = desc_indirect});
        ring.make_available(0);
        fault = QueueFault::BadAddress;
    }
    check_fault(queue, fault);
}

TEST_CASE("an indirect table without the feature is a fault") {
    fake::Memory memory;
    fake::Ring ring(memory, 8, feature_version_1);
    auto queue = ring.make_queue();
    ring.chain().append_readable("a").indirect().build();
    check_fault(queue, QueueFault::BadIndirect);
}

TEST_CASE("an indirect chain may be longer than the queue, up to what one I/O call takes") {
    fake::Memory memory;
    fake::Ring ring(memory, 2, feature_version_1 | feature_indirect_desc);
    auto queue = ring.make_queue();
    auto builder = ring.chain();
    for (std::size_t i = 0; i < max_chain_length; ++i)
        builder.append_readable("x");
    builder.indirect().build();
    CHECK(pop_one(queue).readable().size() == max_chain_length);

    // One segment before the table of 1024 makes one too many.
    const auto data = memory.allocate(1);
    const auto table = memory.allocate(16 * max_chain_length);
    for (std::size_t i = 0; i < max_chain_length; ++i)
        memory.put(
            table + 16 * i,
            fake::Descriptor{.address = data.value,
                             .length = 1,
                             .flags = i + 1 < max_chain_length ? desc_next : std::uint16_t{0},
                             .next = static_cast<std::uint16_t>(i + 1)});
    fake::Ring other(memory, 2, feature_version_1 | feature_indirect_desc);
    auto other_queue = other.make_queue();
    other.put_descriptor(0, {.address = data.value, .length = 1, .flags = desc_next, .next = 1});
    other.put_descriptor(
        1, {.address = table.value, .length = 16 * max_chain_length, .flags = desc_indirect});
    other.make_available(0);
    check_fault(other_queue, QueueFault::ChainTooLong);
}

TEST_CASE("more than 4 GiB in one chain is a fault") {
    // The same 8 MiB again and again.
    fake::Memory memory(9 * MiB);
    fake::Ring ring(memory, 8, feature_version_1 | feature_indirect_desc);
    auto queue = ring.make_queue();
    auto exactly = ring.chain();
    for (int i = 0; i < 512; ++i)
        exactly.append_raw({fake::Memory::base}, 8 * MiB, 0);
    exactly.indirect().build();
    CHECK(pop_one(queue).readable_size() == 4 * GiB);
    auto beyond = ring.chain();
    for (int i = 0; i < 512; ++i)
        beyond.append_raw({fake::Memory::base}, 8 * MiB, 0);
    beyond.append_raw({fake::Memory::base}, 1, 0).indirect().build();
    check_fault(queue, QueueFault::TooLarge);
}

TEST_CASE("without the event index, flags ask for silence") {
    fake::Memory memory;
    fake::Ring ring(memory, 8, feature_version_1);
    auto queue = ring.make_queue();
    CHECK_FALSE(queue.needs_interrupt());
    ring.chain().append_writable(1).build();
    queue.complete(pop_one(queue), 0);
    CHECK(queue.needs_interrupt());
    CHECK_FALSE(queue.needs_interrupt());  // nothing new

    ring.set_avail_flags(1);
    ring.chain().append_writable(1).build();
    queue.complete(pop_one(queue), 0);
    CHECK_FALSE(queue.needs_interrupt());

    queue.disable_notifications();
    CHECK(ring.used_flags() == 1);
    CHECK_FALSE(queue.enable_notifications());
    CHECK(ring.used_flags() == 0);
    ring.chain().append_writable(1).build();
    CHECK(queue.enable_notifications());
}

TEST_CASE("with the event index, the driver names the completion it waits for") {
    fake::Memory memory;
    fake::Ring ring(memory, 8, feature_version_1 | feature_event_idx);
    auto queue = ring.make_queue();
    const auto complete = [&](int n) {
        for (int i = 0; i < n; ++i) {
            ring.chain().append_writable(1).build();
            queue.complete(pop_one(queue), 0);
        }
    };
    ring.set_used_event(0);
    complete(1);
    CHECK(queue.needs_interrupt());
    complete(1);  // the driver still names 0
    CHECK_FALSE(queue.needs_interrupt());
    ring.set_used_event(4);  // wants to hear of the fifth
    complete(2);
    CHECK_FALSE(queue.needs_interrupt());
    complete(3);
    CHECK(queue.needs_interrupt());
    ring.set_avail_flags(1);  // has no meaning now
    ring.set_used_event(7);
    complete(1);
    CHECK(queue.needs_interrupt());

    queue.disable_notifications();
    CHECK(ring.used_flags() == 0);
    CHECK_FALSE(queue.enable_notifications());
    CHECK(ring.avail_event() == 8);
}

TEST_CASE("the event index works across the wrap of the ring's indices") {
    fake::Memory memory;
    fake::Ring ring(memory, 4, feature_version_1 | feature_event_idx);
    auto queue = ring.make_queue();
    const auto mark = memory.mark();
    // A driver that always waits for the next but one completion hears of every second.
    unsigned interrupts = 0;
    ring.set_used_event(1);
    for (unsigned i = 0; i < 131072; ++i) {
        memory.rewind(mark);
        ring.chain().append_writable(1).build();
        queue.complete(pop_one(queue), 0);
        if (queue.needs_interrupt()) {
            ++interrupts;
            ring.set_used_event(static_cast<std::uint16_t>(ring.used_index() + 1));
        }
    }
    CHECK(interrupts == 65536);
}

TEST_CASE("everything the device writes is in the dirty log, and nothing else") {
    for (const auto features : {feature_version_1, feature_version_1 | feature_event_idx}) {
        fake::Memory memory;
        // The rings, and each buffer, on pages of their own.
        const auto page = [&](GuestAddress address) {
            return (address.value - fake::Memory::base) / DirtyPages::page_size;
        };
        fake::Ring ring(memory, 8, features);
        auto queue = ring.make_queue();
        const auto used_page = page(ring.config().used);
        std::ignore = memory.allocate(1, DirtyPages::page_size);
        const auto built = ring.chain().append_readable("in").append_writable(5000).build();
        std::ignore = memory.allocate(1, DirtyPages::page_size);
        const auto dropped = ring.chain().append_writable(10).build();
        std::ignore = memory.allocate(1, DirtyPages::page_size);
        const auto returned = ring.chain().append_writable(10).build();
        memory.dirty().start();
        const auto taken = [&] {
            std::array<std::uint64_t, 4> words{};
            memory.dirty().take(words);
            std::vector<std::uint64_t> pages;
            for (std::uint64_t i = 0; i < 256; ++i)
                if ((words[i / 64] >> (i % 64) & 1) != 0)
                    pages.push_back(i);
            return pages;
        };
        auto chain = pop_one(queue);
        CHECK(taken().empty());
        chain.write(0, std::as_bytes(std::span("answer", 6)));
        queue.complete(std::move(chain), 6);
        const auto first = page(built.writable[0].address);
        auto expected = std::vector{used_page, first, page(built.writable[0].address + 4999)};
        std::ranges::sort(expected);
        const auto [end, last] = std::ranges::unique(expected);
        expected.erase(end, last);
        CHECK(taken() == expected);
        // A chain that is dropped may have been written to; one that goes back was not.
        {
            const auto gone = pop_one(queue);
        }
        CHECK(taken() == std::vector{page(dropped.writable[0].address)});
        queue.put_back(pop_one(queue));
        CHECK(taken().empty());
        CHECK(page(returned.writable[0].address) != page(dropped.writable[0].address));
        // What it asks of the driver lies in the used ring as well.
        std::ignore = queue.enable_notifications();
        CHECK(taken() == std::vector{used_page});
    }
}

TEST_CASE_FIXTURE(Fixture, "segment storage is used again, and chains do not mix") {
    const auto* storage = [&] {
        ring.chain().append_readable("first").append_writable(1).build();
        auto chain = pop_one(queue);
        const auto* data = chain.readable().data();
        queue.complete(std::move(chain), 0);
        return data;
    }();
    ring.chain().append_readable("second").build();
    const auto chain = pop_one(queue);
    CHECK(chain.readable().data() == storage);
    CHECK(text_of(chain.readable()) == "second");
    CHECK(chain.writable_size() == 0);
}

TEST_CASE("slice_iovecs cuts a range out of segments") {
    std::array<char, 10> bytes{'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j'};
    const std::array<iovec, 3> segments{
        {{bytes.data(), 3}, {bytes.data() + 3, 1}, {bytes.data() + 4, 6}}};
    std::vector<iovec> out;
    CHECK(slice_iovecs(segments, 2, 4, out));
    CHECK(text_of(out) == "cdef");
    CHECK(out.size() == 3);
    out.clear();
    CHECK(slice_iovecs(segments, 0, 10, out));
    CHECK(text_of(out) == "abcdefghij");
    out.clear();
    CHECK(slice_iovecs(segments, 10, 0, out));
    CHECK(out.empty());
    CHECK_FALSE(slice_iovecs(segments, 8, 3, out));
    CHECK_FALSE(slice_iovecs(segments, ~0ULL, 1, out));
}

}  // namespace masu::virtio
