// A driver that sends anything as a block request.
//
// Input: a byte of options, then requests: length of the readable part, its bytes, where to cut it,
// then two lengths of writable parts.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/bytes.hpp"
#include "devices/block/virtio_block.hpp"
#include "tests/fuzz/checking_disk.hpp"
#include "tests/unit/devices/virtio/fake_driver.hpp"

namespace masu::block {
namespace {

struct StillClock final : Clock {
    [[nodiscard]] Nanoseconds now() const noexcept override { return 1; }
    [[nodiscard]] std::uint64_t wall() const noexcept override { return 1; }
};

struct CountingDriver final : virtio::Driver {
    int faults = 0;
    void interrupt_queue(std::uint16_t) override {}
    void interrupt_config() override {}
    void fault(std::string_view) override { ++faults; }
};

}  // namespace
}  // namespace masu::block

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace masu;
    using namespace masu::block;
    fuzz::Input input(data, size);
    static const auto loop = *EventLoop::create();
    const auto options = input.take<std::uint8_t>();
    std::vector<std::byte> content(128 * sector_size);
    Metrics metrics;
    const StillClock clock;
    auto block = *VirtioBlock::create(
        "fuzz", std::make_unique<fuzz::CheckingDisk>(content, (options & 1) != 0),
        {.cache = (options & 2) != 0 ? VirtioBlock::Cache::Unsafe : VirtioBlock::Cache::Writeback},
        *loop, Log(), metrics, clock);
    virtio::fake::Memory memory(128 * KiB);
    virtio::fake::Ring ring(memory, 64);
    CountingDriver driver;
    virtio::Activation activation{.memory = &memory.guest(),
                                  .features = block->features() & ~std::uint64_t{options} << 8,
                                  .queues = {},
                                  .driver = &driver};
    activation.queues.emplace_back(ring.make_queue());
    block->activate(std::move(activation));
    int sent = 0;
    int used = 0;
    const auto mark = memory.mark();
    while (!input.done() && driver.faults == 0) {
        memory.rewind(mark);
        const auto readable = input.take_bytes(input.take<std::uint16_t>() % 9000);
        const auto cut = std::min<std::size_t>(input.take<std::uint8_t>(), readable.size());
        auto chain = ring.chain();
        if (cut != 0)
            chain.append_readable(readable.first(cut));
        if (cut != readable.size())
            chain.append_readable(readable.subspan(cut));
        for (int i = 0; i < 2; ++i)
            if (const auto length = input.take<std::uint16_t>() % 9000U; length != 0)
                chain.append_writable(length);
        chain.build();
        ++sent;
        block->notify(0);
        for (int turn = 0; turn < 4; ++turn)
            loop->run_once(0);
        while (ring.take_used())
            ++used;
    }
    // Every request is answered, unless the device asked for a reset.
    fuzz::require(driver.faults != 0 || used == sent);
    block->reset();
    return 0;
}
