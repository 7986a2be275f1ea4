// The lists KVM takes and gives: a count, a word of padding or flags, and that many entries.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace masu::kvm {

// kvm_cpuid2, kvm_msrs and kvm_irq_routing with their storage.
template <class Entry>
class CountedList {
  public:
    explicit CountedList(std::size_t count)
        : words_((header_size + count * sizeof(Entry) + 7) / sizeof(std::uint64_t)) {
        const auto number = static_cast<std::uint32_t>(count);
        std::memcpy(words_.data(), &number, sizeof number);
    }
    explicit CountedList(std::span<const Entry> entries) : CountedList(entries.size()) {
        if (!entries.empty())
            std::memcpy(entries_start(), entries.data(), entries.size_bytes());
    }

    [[nodiscard]] void* data() noexcept { return words_.data(); }
    // After KVM has filled it: as many as it says, and as there is room for.
    [[nodiscard]] std::vector<Entry> entries() const {
        std::uint32_t number = 0;
        std::memcpy(&number, words_.data(), sizeof number);
        const auto room = (words_.size() * sizeof(std::uint64_t) - header_size) / sizeof(Entry);
        std::vector<Entry> result(number < room ? number : room);
        if (!result.empty())
            std::memcpy(result.data(), entries_start(), result.size() * sizeof(Entry));
        return result;
    }

  private:
    static constexpr std::size_t header_size = 8;
    [[nodiscard]] std::uint64_t* entries_start() noexcept { return words_.data() + 1; }
    [[nodiscard]] const std::uint64_t* entries_start() const noexcept { return words_.data() + 1; }

    std::vector<std::uint64_t> words_;
};

}  // namespace masu::kvm
