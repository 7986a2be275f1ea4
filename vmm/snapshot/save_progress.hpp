// What a save of a VM has come to, for whoever asks.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/clock.hpp"

namespace masu::snapshot {

enum class MemoryForm {
    Whole,     // all of it, written out
    OnBase,    // all of it: a copy (a reflink, where the file system has them) of another
               // snapshot's, with the pages written since over it
    OwnPages,  // the pages written since the parent, and nothing else: cannot be restored as it is
};
[[nodiscard]] constexpr std::string_view to_string(MemoryForm form) {
    constexpr std::array<std::string_view, 3> words{"whole", "on-base", "own-pages"};
    return words[static_cast<std::size_t>(form)];
}

enum class SaveState { None, Running, Done, Failed };
[[nodiscard]] constexpr std::string_view to_string(SaveState state) {
    constexpr std::array<std::string_view, 4> words{"none", "running", "done", "failed"};
    return words[static_cast<std::size_t>(state)];
}

struct SaveProgress {
    SaveState state = SaveState::None;
    bool live = false;
    MemoryForm form = MemoryForm::Whole;
    unsigned rounds = 0;  // of a live save, with the last one, in the pause
    std::uint64_t last_round_pages = 0;
    std::uint64_t memory_stored = 0;   // bytes of the memory file that are no holes
    std::uint64_t memory_written = 0;  // bytes written out; of a live save also those twice
    Nanoseconds pause = 0;             // how long the guest stood still for a live save
    Nanoseconds took = 0;
    std::string error;  // of Failed
};

}  // namespace masu::snapshot
