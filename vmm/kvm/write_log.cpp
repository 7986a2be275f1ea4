#include "vmm/kvm/write_log.hpp"

#include <algorithm>
#include <vector>

namespace masu::kvm {

namespace {

// What is protected under KVM's lock at once, so that no vCPU waits for all of a large memory.
constexpr std::uint64_t pages_at_once = 16 * 1024;

}  // namespace

Result<> WriteLog::start() {
    if (on_)
        return {};
    devices_.start();
    // Where it is offered, reading the log and protecting the pages again are two calls.
    if (!manual_ && (kvm_.capability(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) &
                     KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE) != 0) {
        TRY(vm_.set_manual_dirty_log());
        manual_ = true;
    }
    TRY(vm_.set_dirty_log(memory_, true));
    on_ = true;
    return {};
}

Result<> WriteLog::stop() {
    if (!on_)
        return {};
    on_ = false;
    devices_.stop();
    return vm_.set_dirty_log(memory_, false);
}

Result<> WriteLog::protect_again(unsigned region, std::uint64_t pages,
                                 std::span<const std::uint64_t> words) {
    for (std::uint64_t first = 0; first < pages; first += pages_at_once) {
        const auto count = std::min(pages_at_once, pages - first);
        const auto part = words.subspan(first / 64, (count + 63) / 64);
        if (std::ranges::any_of(part, [](std::uint64_t word) { return word != 0; }))
            TRY(vm_.clear_dirty_log(region, first, static_cast<std::uint32_t>(count), part));
    }
    return {};
}

// Regions follow each other in the set as they do in the one mapping; all but the last are a
// multiple of 64 pages long.
Result<> WriteLog::collect(PageSet& into) {
    std::size_t place = 0;
    std::vector<std::uint64_t> words;
    for (unsigned region = 0; region < memory_.regions().size(); ++region) {
        const auto pages = memory_.regions()[region].bytes.size() / guest_page;
        words.assign((pages + 63) / 64, 0);
        TRY(vm_.dirty_log(region, words));
        if (manual_)
            TRY(protect_again(region, pages, words));
        for (std::size_t i = 0; i < words.size(); ++i)
            into.words()[place + i] |= words[i];
        place += words.size();
    }
    devices_.take(into.words());
    return {};
}

}  // namespace masu::kvm
