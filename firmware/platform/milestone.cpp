#include "firmware/platform/milestone.hpp"

#include "firmware/platform/cpu.hpp"

namespace masu::firmware {
namespace {
constinit std::uint16_t port = 0;
}

void init_milestones(std::uint16_t milestone_port) noexcept {
    port = milestone_port;
}

void milestone(FirmwareEvent event) noexcept {
    if (port != 0)
        cpu::out8(port, static_cast<std::uint8_t>(event));
}

}  // namespace masu::firmware
