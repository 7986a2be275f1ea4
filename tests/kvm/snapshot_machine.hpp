// A whole machine (Machine::create, Machine::restore) around the payload snapshot.S, and its disk.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/event_loop.hpp"
#include "base/metrics.hpp"
#include "vmm/machine.hpp"

namespace masu::test {

// A folder for a test's files, in `parent`; gone at the end.
class TestFolder {
  public:
    explicit TestFolder(const std::string& parent = "/tmp");
    ~TestFolder();
    TestFolder(const TestFolder&) = delete;
    TestFolder& operator=(const TestFolder&) = delete;
    [[nodiscard]] const std::string& path() const noexcept { return path_; }
    [[nodiscard]] std::string operator/(const char* name) const { return path_ + "/" + name; }

  private:
    std::string path_;
};

// What the payload keeps at STATE.
struct PayloadState {
    std::uint64_t iterations = 0;
    std::uint64_t mismatch = 0;
    std::uint64_t ticks = 0;
    std::uint64_t requests = 0;
};

// A payload (snapshot.S unless told otherwise) as a bzImage, a read-only disk of 8 sectors, and the
// configuration of a machine of 64 MiB that boots the one with the other behind virtio-mmio.
class PayloadFiles {
  public:
    PayloadFiles();
    explicit PayloadFiles(std::span<const char> payload);
    [[nodiscard]] const VmConfig& config() const { return config_; }
    [[nodiscard]] const TestFolder& folder() const { return folder_; }

  private:
    TestFolder folder_;
    VmConfig config_;
};

// One machine with its own loop. Errors of Masu are thrown: test failures.
class SnapshotMachine {
  public:
    explicit SnapshotMachine(const VmConfig& config);
    // `memory_lost`: of one whose memory is served (MachineContext).
    SnapshotMachine(const VmConfig& config, RestoreSource source,
                    std::function<void(std::string)> memory_lost = {});

    // Handles events until the payload has done `requests` more, or 10 s have passed.
    [[nodiscard]] bool run_for(std::uint64_t requests);
    [[nodiscard]] PayloadState state() const;
    // When a vCPU first left the guest.
    [[nodiscard]] std::optional<Nanoseconds> first_exit() const {
        const auto since = boot_timer_.since_start(Milestone::KernelEntry);
        return since ? std::optional(start_ + *since) : std::nullopt;
    }
    [[nodiscard]] snapshot::MachineState save();
    [[nodiscard]] Machine& machine() { return *machine_; }
    [[nodiscard]] EventLoop& loop() { return *loop_; }

  private:
    [[nodiscard]] MachineContext context();

    std::function<void(std::string)> memory_lost_;
    std::unique_ptr<EventLoop> loop_;
    SystemClock clock_;
    Metrics metrics_;
    const Nanoseconds start_ = clock_.now();
    Network network_{0};
    BootTimer boot_timer_{clock_, start_};
    std::unique_ptr<Machine> machine_;
};

}  // namespace masu::test
