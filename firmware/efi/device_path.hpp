// Device paths (UEFI 10): read with bounds, compared, built and written as text.
#pragma once

#include <optional>
#include <span>

#include "firmware/efi/device_path_nodes.hpp"

namespace masu::firmware::efi {

// A path longer than this is treated as broken: nobody's is.
inline constexpr std::uint64_t max_path_bytes = 16384;

[[nodiscard]] inline std::uint16_t length_of(const DevicePath& node) noexcept {
    return static_cast<std::uint16_t>(node.length[0] | node.length[1] << 8);
}
[[nodiscard]] inline bool is_end(const DevicePath& node) noexcept {
    return node.type == type_end && node.subtype == 0xff;
}
// End of one path of several.
[[nodiscard]] inline bool is_instance_end(const DevicePath& node) noexcept {
    return node.type == type_end;
}
[[nodiscard]] inline const DevicePath* at_offset(const DevicePath* path,
                                                 std::uint64_t offset) noexcept {
    return reinterpret_cast<const DevicePath*>(reinterpret_cast<const std::byte*>(path) + offset);
}
// The node behind; nullptr when this one's length cannot be.
[[nodiscard]] inline const DevicePath* next_node(const DevicePath* node) noexcept {
    const auto length = length_of(*node);
    return length < sizeof(DevicePath) ? nullptr : at_offset(node, length);
}

// Bytes up to the end node, without it; nothing when the path is broken or longer than `limit`.
[[nodiscard]] std::optional<std::uint64_t> path_length(const DevicePath* path,
                                                       std::uint64_t limit = max_path_bytes) noexcept;
// The length of `head` when `path` starts with it.
[[nodiscard]] std::optional<std::uint64_t> head_length(const DevicePath* head,
                                                       const DevicePath* path) noexcept;
[[nodiscard]] bool same_path(const DevicePath* a, const DevicePath* b) noexcept;

// The names of the file-path nodes from `path` on, joined by '\', into `to` with a final zero. False
// when there is another node, none, or too little room.
[[nodiscard]] bool file_name_of(const DevicePath* path, std::span<char16_t> to) noexcept;

// As text (10.6), without a final zero; returns the length that all of it has, of which no more than
// `to` was written.
[[nodiscard]] std::uint64_t node_to_text(const DevicePath* node, std::span<char16_t> to) noexcept;
[[nodiscard]] std::uint64_t path_to_text(const DevicePath* path, std::span<char16_t> to) noexcept;

}  // namespace masu::firmware::efi
