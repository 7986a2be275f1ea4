#include "firmware/services/events.hpp"

#include "firmware/platform/clock.hpp"
#include "firmware/platform/cpu.hpp"
#include "firmware/platform/say.hpp"
#include "firmware/runtime/runtime.hpp"
#include "firmware/services/memory.hpp"

namespace masu::firmware {

using efi::Guid;
using efi::Status;
using efi::Tpl;

namespace {

struct EventEntry {
    EventEntry* next = nullptr;
    std::uint32_t type = 0;
    Tpl tpl = 0;
    efi::EventNotify notify = nullptr;
    void* context = nullptr;
    bool in_group = false;
    Guid group{};
    bool signaled = false;
    bool pending = false;  // its notify function waits to be called
    std::uint64_t order = 0;  // of becoming pending: first come, first served at one level
    std::uint64_t deadline = 0;  // 0: no timer
    std::uint64_t period = 0;    // 0: once
};

constinit EventEntry* events = nullptr;
constinit Tpl current = efi::tpl_application;
constinit std::uint64_t next_order = 1;
constinit bool polling = false;
constinit std::uint64_t watchdog_deadline = 0;
constexpr std::uint64_t max_watchdog = 1'000'000'000;

EventEntry* find_event(efi::Event event) noexcept {
    for (auto* e = events; e != nullptr; e = e->next)
        if (e == event)
            return e;
    return nullptr;
}

void make_pending(EventEntry& event) noexcept {
    if (event.pending)
        return;
    event.pending = true;
    event.order = next_order++;
}

EventEntry* next_pending() noexcept {
    EventEntry* best = nullptr;
    for (auto* e = events; e != nullptr; e = e->next)
        if (e->pending && e->tpl > current &&
            (best == nullptr || e->tpl > best->tpl ||
             (e->tpl == best->tpl && e->order < best->order)))
            best = e;
    return best;
}

void dispatch() noexcept {
    while (auto* event = next_pending()) {
        event->pending = false;
        const Tpl before = current;
        current = event->tpl;
        event->notify(event, event->context);
        current = before;
    }
}

void signal_one(EventEntry& event) noexcept {
    if ((event.type & efi::event_notify_signal) != 0)
        make_pending(event);
    else
        event.signaled = true;
}

Tpl EFIAPI efi_raise_tpl(Tpl level) {
    const Tpl old = current;
    if (level > current)
        current = level > efi::tpl_high ? efi::tpl_high : level;
    return old;
}

void EFIAPI efi_restore_tpl(Tpl level) {
    if (level < current)
        current = level;
    poll_timers();
}

Status create(std::uint32_t type, Tpl tpl, efi::EventNotify notify, void* context,
              const Guid* group, efi::Event* event) noexcept {
    const bool notifies = (type & (efi::event_notify_wait | efi::event_notify_signal)) != 0;
    const bool both = (type & efi::event_notify_wait) != 0 && (type & efi::event_notify_signal) != 0;
    constexpr std::uint32_t known = efi::event_timer | efi::event_runtime | 0x303;
    if (event == nullptr || both || (type & ~known) != 0)
        return Status::InvalidParameter;
    if (notifies &&
        (notify == nullptr || tpl <= efi::tpl_application || tpl >= efi::tpl_high))
        return Status::InvalidParameter;
    if (type == efi::event_exit_boot_services)
        group = &efi::guid::group_exit_boot_services;
    else if (type == efi::event_virtual_address_change)
        group = &efi::guid::group_virtual_address_change;
    auto* entry = make<EventEntry>();
    if (entry == nullptr)
        return Status::OutOfResources;
    entry->type = type;
    entry->tpl = notifies ? tpl : 0;
    entry->notify = notifies ? notify : nullptr;
    entry->context = context;
    entry->in_group = group != nullptr;
    if (group != nullptr)
        entry->group = *group;
    entry->next = events;
    events = entry;
    *event = entry;
    return Status::Success;
}

Status EFIAPI efi_create_event(std::uint32_t type, Tpl tpl, efi::EventNotify notify, void* context,
                               efi::Event* event) {
    return create(type, tpl, notify, context, nullptr, event);
}

Status EFIAPI efi_create_event_ex(std::uint32_t type, Tpl tpl, efi::EventNotify notify,
                                  const void* context, const Guid* group, efi::Event* event) {
    if (group != nullptr &&
        (type == efi::event_exit_boot_services || type == efi::event_virtual_address_change))
        return Status::InvalidParameter;
    return create(type, tpl, notify, const_cast<void*>(context), group, event);
}

Status EFIAPI efi_set_timer(efi::Event event, efi::TimerDelay kind, std::uint64_t time) {
    auto* entry = find_event(event);
    if (entry == nullptr || (entry->type & efi::event_timer) == 0)
        return Status::InvalidParameter;
    const std::uint64_t now = clock::now();
    const std::uint64_t wait = time > ~now - 1 ? ~now - 1 : time;
    switch (kind) {
        case efi::TimerDelay::Cancel:
            entry->deadline = 0;
            entry->period = 0;
            return Status::Success;
        case efi::TimerDelay::Periodic:
            // 0 means each tick of the platform's timer: 10 ms here.
            entry->period = time == 0 ? 100'000 : wait;
            entry->deadline = now + entry->period;
            return Status::Success;
        case efi::TimerDelay::Relative:
            entry->period = 0;
            entry->deadline = now + wait + (wait == 0 ? 1 : 0);
            return Status::Success;
    }
    return Status::InvalidParameter;
}

Status EFIAPI efi_signal_event(efi::Event event) {
    return signal_event(event);
}

Status EFIAPI efi_close_event(efi::Event event) {
    for (auto** link = &events; *link != nullptr; link = &(*link)->next) {
        if (*link != event)
            continue;
        auto* entry = *link;
        *link = entry->next;
        return free_pool(entry);
    }
    return Status::InvalidParameter;
}

Status EFIAPI efi_check_event(efi::Event event) {
    auto* entry = find_event(event);
    if (entry == nullptr || (entry->type & efi::event_notify_signal) != 0)
        return Status::InvalidParameter;
    poll_timers();
    if (!entry->signaled && (entry->type & efi::event_notify_wait) != 0) {
        make_pending(*entry);
        dispatch();
    }
    if (!entry->signaled)
        return Status::NotReady;
    entry->signaled = false;
    return Status::Success;
}

Status EFIAPI efi_wait_for_event(std::uint64_t count, efi::Event* list, std::uint64_t* index) {
    if (count == 0 || list == nullptr || index == nullptr)
        return Status::InvalidParameter;
    if (current != efi::tpl_application)
        return Status::Unsupported;
    for (;;) {
        for (std::uint64_t i = 0; i < count; ++i) {
            const auto status = efi_check_event(list[i]);
            if (status == Status::NotReady)
                continue;
            *index = i;
            return status;
        }
        cpu::pause();
    }
}

Status EFIAPI efi_stall(std::uint64_t microseconds) {
    clock::stall(microseconds);
    poll_timers();
    return Status::Success;
}

Status EFIAPI efi_set_watchdog_timer(std::uint64_t seconds, std::uint64_t code, std::uint64_t size,
                                     const char16_t* data) {
    if (size != 0 && data == nullptr)
        return Status::InvalidParameter;
    // 7.5: codes up to 0xffff belong to the firmware.
    if (code != 0 && code <= 0xffff && seconds != 0)
        return Status::InvalidParameter;
    set_watchdog(seconds);
    return Status::Success;
}

}  // namespace

efi::Event make_wait_event(efi::EventNotify notify, void* context) noexcept {
    efi::Event event = nullptr;
    (void)create(efi::event_notify_wait, efi::tpl_notify, notify, context, nullptr, &event);
    return event;
}

Status signal_event(efi::Event event) noexcept {
    auto* entry = find_event(event);
    if (entry == nullptr)
        return Status::InvalidParameter;
    if (entry->in_group) {
        signal_group(entry->group);
    } else {
        signal_one(*entry);
        dispatch();
    }
    return Status::Success;
}

void signal_group(const Guid& group) noexcept {
    for (auto* e = events; e != nullptr; e = e->next)
        if (e->in_group && e->group == group)
            signal_one(*e);
    dispatch();
}

void poll_timers() noexcept {
    // A notify function may well call us again.
    if (!polling && current < efi::tpl_high) {
        polling = true;
        const std::uint64_t now = clock::now();
        for (auto* e = events; e != nullptr; e = e->next) {
            if (e->deadline == 0 || e->deadline > now)
                continue;
            e->deadline = e->period == 0 ? 0 : now + e->period;
            signal_one(*e);
        }
        polling = false;
        if (watchdog_deadline != 0 && now > watchdog_deadline) {
            say("the watchdog timer ran out: the boot loader hangs; resetting");
            reset(efi::ResetType::Cold);
        }
    }
    dispatch();
}

void stop_timers() noexcept {
    for (auto* e = events; e != nullptr; e = e->next)
        e->deadline = 0;
    watchdog_deadline = 0;
}

void set_watchdog(std::uint64_t seconds) noexcept {
    const auto bounded = seconds < max_watchdog ? seconds : max_watchdog;
    watchdog_deadline = seconds == 0 ? 0 : clock::now() + bounded * clock::per_second;
}

void fill_event_services(efi::BootServices& table) noexcept {
    table.raise_tpl = efi_raise_tpl;
    table.restore_tpl = efi_restore_tpl;
    table.create_event = efi_create_event;
    table.create_event_ex = efi_create_event_ex;
    table.set_timer = efi_set_timer;
    table.wait_for_event = efi_wait_for_event;
    table.signal_event = efi_signal_event;
    table.close_event = efi_close_event;
    table.check_event = efi_check_event;
    table.stall = efi_stall;
    table.set_watchdog_timer = efi_set_watchdog_timer;
}

}  // namespace masu::firmware
