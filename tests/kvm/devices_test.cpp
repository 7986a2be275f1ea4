#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <thread>

#include "base/event_loop.hpp"
#include "devices/block/virtio_block.hpp"
#include "devices/legacy/acpi_power.hpp"
#include "devices/virtio/mmio_transport.hpp"
#include "tests/kvm/payload_machine.hpp"
#include "tests/kvm/payloads.hpp"
#include "vmm/layout.hpp"

using namespace masu;
using namespace masu::test;
using Reports = std::vector<std::uint32_t>;

namespace {

// A file of 8 sectors, each full of its own number; gone at the end.
class DiskFile {
  public:
    DiskFile() {
        fd_ = Fd(::mkstemp(path_.data()));
        for (int sector = 0; sector < 8; ++sector) {
            const std::string content(512, static_cast<char>(0x10 + sector));
            REQUIRE(::write(fd_.get(), content.data(), content.size()) == 512);
        }
    }
    ~DiskFile() { ::unlink(path_.c_str()); }
    DiskFile(const DiskFile&) = delete;
    DiskFile& operator=(const DiskFile&) = delete;
    [[nodiscard]] const std::string& path() const { return path_; }
    [[nodiscard]] std::uint32_t word(off_t offset) const {
        std::uint32_t value = 0;
        return ::pread(fd_.get(), &value, sizeof value, offset) == sizeof value ? value : 0;
    }

  private:
    std::string path_ = "/tmp/masu-kvm-test-XXXXXX";
    Fd fd_;
};

}  // namespace

TEST_CASE("a polling guest reads and writes a disk through virtio-mmio and an ioeventfd") {
    const DiskFile file;
    auto loop = EventLoop::create();
    REQUIRE(loop);
    PayloadMachine machine(block_payload());
    auto opened = block::open_disk({.path = file.path()});
    REQUIRE(opened);
    auto device = block::VirtioBlock::create("disk", std::move(opened->disk), {}, **loop, Log(),
                                             machine.metrics, machine.clock);
    REQUIRE(device);
    auto transport = virtio::MmioTransport::create(
        "disk", **device, machine.memory, **loop, machine.ioapic->line(10), machine.metrics, Log());
    REQUIRE(transport);
    REQUIRE(machine.mmio.insert(layout::virtio_mmio, layout::virtio_mmio_size, **transport,
                                "virtio-mmio"));
    const auto& doorbell = (*transport)->core().notify_event(0);
    constexpr auto doorbell_address = layout::virtio_mmio + virtio::MmioTransport::notify_offset;
    REQUIRE(machine.vm->add_io_event(kvm::IoSpace::Mmio, doorbell_address, 4, 0, doorbell));

    std::jthread loop_thread([&] { (*loop)->run(); });
    machine.start();
    const bool done = machine.wait_until_done();
    machine.vcpus->stop();
    (*loop)->stop();
    loop_thread.join();
    REQUIRE(done);
    CHECK(machine.wait_for_reports(7) ==
          Reports{11, 0, 0x1010'1010, 0, 0, 0x5a5a'5a5a, 0x1234'5678});
    CHECK(file.word(3 * 512) == 0x5a5a'5a5a);
    CHECK(file.word(4 * 512 - 4) == 0x1234'5678);
    CHECK(file.word(4 * 512) == 0x1414'1414);
    CHECK(machine.metrics.counter("block_disk", "read_count").value() == 2);
    CHECK(machine.metrics.counter("block_disk", "write_count").value() == 1);
    machine.vm->remove_io_event(kvm::IoSpace::Mmio, doorbell_address, 4, 0, doorbell);
}

TEST_CASE("a reset the guest asks for is heard, and the machine can be stopped in it") {
    PayloadMachine machine(reset_payload(), 2);
    std::atomic<int> resets{0};
    legacy::AcpiPower power(layout::acpi_reset_value, [] {}, [&] { ++resets; });
    REQUIRE(machine.ports.insert(layout::acpi_sleep_port, legacy::AcpiPower::port_count, power,
                                 "acpi power"));
    machine.start();
    CHECK(machine.wait_for_reports(1) == Reports{1});
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (resets == 0 && std::chrono::steady_clock::now() < deadline)
        std::this_thread::yield();
    machine.vcpus->stop();
    CHECK(resets == 1);
}
