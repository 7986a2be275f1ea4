#include "vmm/snapshot/working_set.hpp"

#include <linux/mman.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>

#include "vmm/jail/jail.hpp"
#include "vmm/snapshot/memory_file.hpp"

namespace masu::snapshot {

namespace {

constexpr std::uint64_t pages_at_once = 512;

}  // namespace

Result<PageList> look_at_working_set(const kvm::GuestRam& ram, const SnapshotId& snapshot) {
    PageList list{.kind = PageListKind::WorkingSet,
                  .memory_bytes = ram.size(),
                  .belongs_to = snapshot,
                  .runs = {}};
    const auto found = TRY(present_pages(ram));
    add_runs(list.runs, found.own, PageUse::Written);
    add_runs(list.runs, found.shared, PageUse::Read);
    if (list.runs.size() > max_page_runs)
        return fail("the working set is too scattered to be kept: {} ranges", list.runs.size());
    std::ranges::sort(list.runs, {}, &ListedRun::first);
    return list;
}

WorkingSetPopulation::WorkingSetPopulation(const kvm::GuestRam& ram, PageList list,
                                           jail::FilterMode filters)
    : thread_([this, &ram, list = std::move(list), filters](const std::stop_token& stop) {
          if (const auto jailed = jail::enter_thread(jail::ThreadKind::Populate, filters); jailed)
              run(ram, list, stop);
          else
              error_ = jailed.error().os_errno;
      }) {}

void WorkingSetPopulation::wait() {
    if (thread_.joinable())
        thread_.join();
}

// What will be written to first: a copy is what costs the guest most.
void WorkingSetPopulation::run(const kvm::GuestRam& ram, const PageList& list,
                               const std::stop_token& stop) {
    for (const auto use : {PageUse::Written, PageUse::Read})
        for (const auto& run : list.runs) {
            if (run.use != static_cast<std::uint32_t>(use))
                continue;
            for (std::uint64_t first = run.first; first < run.first + run.count;
                 first += pages_at_once) {
                if (stop.stop_requested())
                    return;
                const auto count = std::min(pages_at_once, run.first + run.count - first);
                const auto bytes = ram.bytes().subspan(first * guest_page, count * guest_page);
                if (::madvise(bytes.data(), bytes.size(),
                              use == PageUse::Written ? MADV_POPULATE_WRITE : MADV_POPULATE_READ) <
                    0) {
                    error_ = errno;
                    return;
                }
                pages_ += count;
            }
        }
}

}  // namespace masu::snapshot
