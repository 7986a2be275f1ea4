// Events, timers and task priority levels (UEFI 7.1). There are no interrupts: timers are looked at
// whenever a boot service that waits, checks or lowers the level is called.
#pragma once

#include "firmware/efi/protocols.hpp"

namespace masu::firmware {

// An event of the firmware's own: `notify` is called when somebody waits for it or checks it.
[[nodiscard]] efi::Event make_wait_event(efi::EventNotify notify, void* context) noexcept;
efi::Status signal_event(efi::Event event) noexcept;
void signal_group(const efi::Guid& group) noexcept;
// Fires due timers and runs what waits for a lower level. Resets the machine when the watchdog is
// over.
void poll_timers() noexcept;
void stop_timers() noexcept;  // ExitBootServices
// 0 switches it off.
void set_watchdog(std::uint64_t seconds) noexcept;

void fill_event_services(efi::BootServices& table) noexcept;

}  // namespace masu::firmware
