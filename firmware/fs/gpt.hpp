// Within partitions.cpp: the GPT half.
#pragma once

#include "firmware/fs/partitions.hpp"

namespace masu::firmware {

// Both copies tried. Entries are not yet checked against each other.
[[nodiscard]] Result<PartitionTable> read_gpt(BlockReader& disk, Arena& arena) noexcept;

}  // namespace masu::firmware
