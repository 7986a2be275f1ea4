#include "tests/kvm/snapshot_machine.hpp"

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <stdexcept>

#include "base/bytes.hpp"
#include "tests/kvm/payloads.hpp"
#include "tests/unit/vmm/boot/fake_kernels.hpp"

namespace masu::test {

namespace {

constexpr auto patience = std::chrono::seconds(10);
constexpr std::uint64_t state_address = 0x60000;

template <class T>
T require(Result<T> result) {
    if (!result)
        throw std::runtime_error(result.error().message);
    if constexpr (!std::is_void_v<T>)
        return std::move(*result);
}

void write_file(const std::string& path, std::span<const std::byte> bytes) {
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    if (!file.flush())
        throw std::runtime_error("cannot write " + path);
}

// The 64-bit entry lies 0x200 into what follows the two sectors of setup.
std::vector<std::byte> make_kernel(std::span<const char> payload) {
    auto image = boot::test::make_bzimage();
    std::ranges::copy(std::as_bytes(payload), image.begin() + 0x400 + 0x200);
    return image;
}

std::vector<std::byte> numbered_sectors() {
    std::vector<std::byte> disk;
    for (unsigned sector = 0; sector < 8; ++sector)
        disk.insert(disk.end(), 512, std::byte(0x10 + sector));
    return disk;
}

}  // namespace

TestFolder::TestFolder(const std::string& parent) : path_(parent + "/masu-snapshot-test-XXXXXX") {
    if (::mkdtemp(path_.data()) == nullptr)
        throw std::runtime_error("cannot make a folder in " + parent);
}

TestFolder::~TestFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
}

PayloadFiles::PayloadFiles() : PayloadFiles(snapshot_payload()) {}

PayloadFiles::PayloadFiles(std::span<const char> payload) {
    write_file(folder_ / "kernel", make_kernel(payload));
    write_file(folder_ / "disk", numbered_sectors());
    config_.transport = Transport::Mmio;
    config_.machine.mem_size_mib = 64;
    config_.boot_source =
        BootSource{.kernel_image_path = folder_ / "kernel", .initrd_path = {}, .boot_args = "none"};
    config_.drives.push_back(
        {.drive_id = "disk", .path_on_host = folder_ / "disk", .is_read_only = true});
}

SnapshotMachine::SnapshotMachine(const VmConfig& config) : loop_(require(EventLoop::create())) {
    machine_ = require(Machine::create(config, context()));
}

SnapshotMachine::SnapshotMachine(const VmConfig& config, RestoreSource source,
                                 std::function<void(std::string)> memory_lost)
    : memory_lost_(std::move(memory_lost)), loop_(require(EventLoop::create())) {
    machine_ = require(Machine::restore(config, std::move(source), context()));
    require(machine_->restore_state());
}

MachineContext SnapshotMachine::context() {
    return {.loop = *loop_,
            .log = Log(),
            .metrics = metrics_,
            .boot_timer = boot_timer_,
            .network = network_,
            .console_output = [](auto) {},
            .stopped = [](const StopEvent&) {},
            .memory_lost = memory_lost_};
}

bool SnapshotMachine::run_for(std::uint64_t requests) {
    const auto wanted = state().requests + requests;
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (state().requests < wanted && state().mismatch == 0) {
        if (std::chrono::steady_clock::now() > deadline)
            return false;
        loop_->run_once(1);
    }
    return state().mismatch == 0;
}

PayloadState SnapshotMachine::state() const {
    return machine_->ram()
        .memory()
        .load<PayloadState>(GuestAddress{state_address})
        .value_or(PayloadState{});
}

snapshot::MachineState SnapshotMachine::save() {
    return require(machine_->save());
}

}  // namespace masu::test
