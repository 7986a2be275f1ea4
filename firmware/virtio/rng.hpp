// virtio-rng, polled (virtio 1.2, 5.4).
#pragma once

#include <cstddef>
#include <span>

namespace masu::firmware::virtio {

// Takes over the first entropy device; false when there is none.
[[nodiscard]] bool start_rng() noexcept;
// False when the device does not answer in time.
[[nodiscard]] bool random_bytes(std::span<std::byte> to) noexcept;
void stop_rng() noexcept;

}  // namespace masu::firmware::virtio
