// The pages a restored guest touches first: recorded once, and from then on brought in ahead of it.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "base/result.hpp"
#include "vmm/jail/thread_kind.hpp"
#include "vmm/kvm/guest_ram.hpp"
#include "vmm/snapshot/page_list.hpp"

namespace masu::snapshot {

// What of memory mapped from a snapshot's file this process holds by now: pages written to, which
// are copies of its own, and pages of the file that are mapped. The kernel maps some of the file's
// pages around each that was touched, so there are more of those than the guest asked for. By
// /proc/self/pagemap.
[[nodiscard]] Result<PageList> look_at_working_set(const kvm::GuestRam& ram,
                                                   const SnapshotId& snapshot);

// Brings the pages of a list into memory, on a thread of its own, in batches: those that will be
// written to are copied already, the others mapped (MADV_POPULATE_WRITE, MADV_POPULATE_READ). The
// guest may run meanwhile. It is only a help: a host that cannot (Linux before 5.14, no memory)
// ends it, and the guest faults its pages in by itself. Destruction ends it; `ram` outlives it.
class WorkingSetPopulation {
  public:
    WorkingSetPopulation(const kvm::GuestRam& ram, PageList list,
                         jail::FilterMode filters = jail::FilterMode::Off);
    WorkingSetPopulation(const WorkingSetPopulation&) = delete;
    WorkingSetPopulation& operator=(const WorkingSetPopulation&) = delete;

    // Blocks until it has come to its end.
    void wait();
    [[nodiscard]] std::uint64_t pages() const noexcept { return pages_.load(); }  // so far
    [[nodiscard]] int error() const noexcept { return error_.load(); }  // errno that ended it, or 0

  private:
    void run(const kvm::GuestRam& ram, const PageList& list, const std::stop_token& stop);

    std::atomic<std::uint64_t> pages_{0};
    std::atomic<int> error_{0};
    std::jthread thread_;
};

}  // namespace masu::snapshot
