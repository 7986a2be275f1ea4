#include "firmware/services/handles.hpp"

#include "firmware/efi/device_path.hpp"
#include "firmware/services/events.hpp"
#include "firmware/services/handle_entry.hpp"
#include "firmware/services/memory.hpp"

namespace masu::firmware {

using efi::Guid;
using efi::Handle;
using efi::Status;

namespace {

constinit HandleEntry* first = nullptr;
constinit HandleEntry* last = nullptr;

// RegisterProtocolNotify(): the handles that got the protocol since, oldest first.
struct News {
    News* next = nullptr;
    Handle handle = nullptr;
};
struct Registration {
    Registration* next = nullptr;
    Guid guid{};
    efi::Event event = nullptr;
    News* news = nullptr;
};
constinit Registration* registrations = nullptr;

void announce(const Guid& guid, Handle handle) noexcept {
    for (auto* r = registrations; r != nullptr; r = r->next) {
        if (!(r->guid == guid))
            continue;
        auto* item = make<News>();
        if (item == nullptr)
            continue;
        item->handle = handle;
        auto** end = &r->news;
        while (*end != nullptr)
            end = &(*end)->next;
        *end = item;
        (void)signal_event(r->event);
    }
}

// The next handle that is news to this registration and still has the protocol.
Handle take_news(void* key) noexcept {
    for (auto* r = registrations; r != nullptr; r = r->next) {
        if (r != key)
            continue;
        while (auto* item = r->news) {
            const Handle handle = item->handle;
            r->news = item->next;
            (void)free_pool(item);
            if (find_protocol(handle, r->guid) != nullptr || find_entry(handle, r->guid) != nullptr)
                return handle;
        }
    }
    return nullptr;
}

void drop_handle(HandleEntry* entry) noexcept {
    HandleEntry* before = nullptr;
    for (auto* h = first; h != nullptr; before = h, h = h->next) {
        if (h != entry)
            continue;
        (before == nullptr ? first : before->next) = h->next;
        if (last == h)
            last = before;
        (void)free_pool(h);
        return;
    }
}

bool matches(Handle handle, efi::LocateSearch search, const Guid* protocol) noexcept {
    return search == efi::LocateSearch::AllHandles ||
           (protocol != nullptr && find_entry(handle, *protocol) != nullptr);
}

// A handle that has this very device path (7.3.8 allows no second one).
Handle handle_with_path(const efi::DevicePath* path) noexcept {
    for (Handle h = next_handle_with(nullptr, efi::guid::device_path); h != nullptr;
         h = next_handle_with(h, efi::guid::device_path)) {
        const auto* own = find_interface<efi::DevicePath>(h, efi::guid::device_path);
        if (path != nullptr && own != nullptr && efi::same_path(own, path))
            return h;
    }
    return nullptr;
}

Status EFIAPI efi_install(Handle* handle, const Guid* protocol, efi::InterfaceType type,
                          void* interface) {
    if (handle == nullptr || protocol == nullptr || type != efi::InterfaceType::Native)
        return Status::InvalidParameter;
    return install_protocol(*handle, *protocol, interface);
}

Status EFIAPI efi_reinstall(Handle handle, const Guid* protocol, void* old_interface,
                            void* new_interface) {
    if (protocol == nullptr || find_handle(handle) == nullptr)
        return Status::InvalidParameter;
    auto* entry = find_entry(handle, *protocol);
    if (entry == nullptr || entry->interface != old_interface)
        return Status::NotFound;
    if (!disconnect_users(handle, *entry))
        return Status::AccessDenied;
    entry->interface = new_interface;
    announce(*protocol, handle);
    return Status::Success;
}

Status EFIAPI efi_uninstall(Handle handle, const Guid* protocol, void* interface) {
    if (protocol == nullptr)
        return Status::InvalidParameter;
    return uninstall_protocol(handle, *protocol, interface);
}

Status EFIAPI efi_register_notify(const Guid* protocol, efi::Event event, void** registration) {
    if (protocol == nullptr || event == nullptr || registration == nullptr)
        return Status::InvalidParameter;
    auto* r = make<Registration>();
    if (r == nullptr)
        return Status::OutOfResources;
    r->guid = *protocol;
    r->event = event;
    r->next = registrations;
    registrations = r;
    *registration = r;
    return Status::Success;
}

Status EFIAPI efi_locate_handle(efi::LocateSearch search, const Guid* protocol, void* key,
                                std::uint64_t* size, Handle* buffer) {
    if (size == nullptr || search > efi::LocateSearch::ByProtocol ||
        (search == efi::LocateSearch::ByProtocol && protocol == nullptr) ||
        (search == efi::LocateSearch::ByRegisterNotify && key == nullptr))
        return Status::InvalidParameter;
    if (search == efi::LocateSearch::ByRegisterNotify) {
        if (*size < sizeof(Handle)) {
            *size = sizeof(Handle);
            return Status::BufferTooSmall;
        }
        const Handle news = take_news(key);
        if (news == nullptr)
            return Status::NotFound;
        if (buffer == nullptr)
            return Status::InvalidParameter;
        *size = sizeof(Handle);
        buffer[0] = news;
        return Status::Success;
    }
    std::uint64_t needed = 0;
    for (Handle h = next_handle(nullptr); h != nullptr; h = next_handle(h))
        if (matches(h, search, protocol))
            needed += sizeof(Handle);
    if (needed == 0)
        return Status::NotFound;
    if (*size < needed) {
        *size = needed;
        return Status::BufferTooSmall;
    }
    if (buffer == nullptr)
        return Status::InvalidParameter;
    *size = needed;
    for (Handle h = next_handle(nullptr); h != nullptr; h = next_handle(h))
        if (matches(h, search, protocol))
            *buffer++ = h;
    return Status::Success;
}

Status EFIAPI efi_locate_handle_buffer(efi::LocateSearch search, const Guid* protocol, void* key,
                                       std::uint64_t* count, Handle** buffer) {
    if (count == nullptr || buffer == nullptr)
        return Status::InvalidParameter;
    *count = 0;
    *buffer = nullptr;
    std::uint64_t size = 0;
    auto status = efi_locate_handle(search, protocol, key, &size, nullptr);
    if (status != Status::BufferTooSmall)
        return status;
    *buffer = static_cast<Handle*>(allocate_pool(efi::MemoryType::BootServicesData, size));
    if (*buffer == nullptr)
        return Status::OutOfResources;
    status = efi_locate_handle(search, protocol, key, &size, *buffer);
    if (status != Status::Success) {
        (void)free_pool(*buffer);
        *buffer = nullptr;
        return status;
    }
    *count = size / sizeof(Handle);
    return Status::Success;
}

Status EFIAPI efi_locate_protocol(const Guid* protocol, void* registration, void** interface) {
    if (protocol == nullptr || interface == nullptr)
        return Status::InvalidParameter;
    *interface = nullptr;
    const Handle found =
        registration == nullptr ? next_handle_with(nullptr, *protocol) : take_news(registration);
    const auto* entry = found == nullptr ? nullptr : find_entry(found, *protocol);
    if (entry == nullptr)
        return Status::NotFound;
    *interface = entry->interface;
    return Status::Success;
}

Status EFIAPI efi_locate_device_path(const Guid* protocol, efi::DevicePath** path,
                                     Handle* handle) {
    if (protocol == nullptr || path == nullptr || *path == nullptr)
        return Status::InvalidParameter;
    const efi::DevicePath* at = *path;
    Handle found = nullptr;
    const auto status = locate_device_path(*protocol, at, found);
    if (status != Status::Success)
        return status;
    if (handle == nullptr)
        return Status::InvalidParameter;
    *handle = found;
    *path = const_cast<efi::DevicePath*>(at);
    return Status::Success;
}

// Pairs of GUID and interface, ended by a null. On failure what was done is undone.
Status EFIAPI efi_install_multiple(Handle* handle, ...) {
    if (handle == nullptr)
        return Status::InvalidParameter;
    const Handle original = *handle;
    __builtin_ms_va_list list;
    __builtin_ms_va_start(list, handle);
    auto status = Status::Success;
    std::uint64_t done = 0;
    while (status == Status::Success) {
        const auto* protocol = __builtin_va_arg(list, const Guid*);
        if (protocol == nullptr)
            break;
        void* interface = __builtin_va_arg(list, void*);
        const Handle same = *protocol == efi::guid::device_path
                                ? handle_with_path(static_cast<efi::DevicePath*>(interface))
                                : nullptr;
        status = same != nullptr ? Status::AlreadyStarted
                                 : install_protocol(*handle, *protocol, interface);
        done += status == Status::Success ? 1 : 0;
    }
    __builtin_ms_va_end(list);
    if (status == Status::Success)
        return status;
    const Handle made = *handle;
    __builtin_ms_va_start(list, handle);
    for (; done > 0; --done) {
        const auto* protocol = __builtin_va_arg(list, const Guid*);
        void* interface = __builtin_va_arg(list, void*);
        (void)uninstall_protocol(made, *protocol, interface);
    }
    __builtin_ms_va_end(list);
    *handle = original;
    return status;
}

Status EFIAPI efi_uninstall_multiple(Handle handle, ...) {
    __builtin_ms_va_list list;
    __builtin_ms_va_start(list, handle);
    auto status = Status::Success;
    std::uint64_t done = 0;
    while (status == Status::Success) {
        const auto* protocol = __builtin_va_arg(list, const Guid*);
        if (protocol == nullptr)
            break;
        void* interface = __builtin_va_arg(list, void*);
        status = uninstall_protocol(handle, *protocol, interface);
        done += status == Status::Success ? 1 : 0;
    }
    __builtin_ms_va_end(list);
    if (status == Status::Success)
        return status;
    __builtin_ms_va_start(list, handle);
    for (; done > 0; --done) {
        const auto* protocol = __builtin_va_arg(list, const Guid*);
        void* interface = __builtin_va_arg(list, void*);
        (void)install_protocol(handle, *protocol, interface);
    }
    __builtin_ms_va_end(list);
    return Status::InvalidParameter;
}

}  // namespace

HandleEntry* find_handle(Handle handle) noexcept {
    for (auto* h = first; h != nullptr; h = h->next)
        if (h == handle)
            return h;
    return nullptr;
}

ProtocolEntry* find_entry(Handle handle, const Guid& protocol) noexcept {
    auto* entry = find_handle(handle);
    if (entry == nullptr)
        return nullptr;
    for (auto* p = entry->protocols; p != nullptr; p = p->next)
        if (p->guid == protocol)
            return p;
    return nullptr;
}

bool is_handle(Handle handle) noexcept {
    return find_handle(handle) != nullptr;
}

void* find_protocol(Handle handle, const Guid& protocol) noexcept {
    const auto* entry = find_entry(handle, protocol);
    return entry == nullptr ? nullptr : entry->interface;
}

Handle next_handle(Handle previous) noexcept {
    if (previous == nullptr)
        return first;
    const auto* entry = find_handle(previous);
    return entry == nullptr ? nullptr : entry->next;
}

Handle next_handle_with(Handle previous, const Guid& protocol) noexcept {
    Handle h = next_handle(previous);
    while (h != nullptr && find_entry(h, protocol) == nullptr)
        h = next_handle(h);
    return h;
}

Status install_protocol(Handle& handle, const Guid& protocol, void* interface) noexcept {
    HandleEntry* entry = nullptr;
    if (handle != nullptr) {
        entry = find_handle(handle);
        if (entry == nullptr || find_entry(handle, protocol) != nullptr)
            return Status::InvalidParameter;
    }
    auto* added = make<ProtocolEntry>();
    if (added == nullptr)
        return Status::OutOfResources;
    added->guid = protocol;
    added->interface = interface;
    if (entry == nullptr) {
        entry = make<HandleEntry>();
        if (entry == nullptr) {
            (void)free_pool(added);
            return Status::OutOfResources;
        }
        (last == nullptr ? first : last->next) = entry;
        last = entry;
        handle = entry;
    }
    // Newest last: ProtocolsPerHandle lists in order of installation.
    auto** end = &entry->protocols;
    while (*end != nullptr)
        end = &(*end)->next;
    *end = added;
    announce(protocol, handle);
    return Status::Success;
}

Status uninstall_protocol(Handle handle, const Guid& protocol, void* interface) noexcept {
    auto* entry = find_handle(handle);
    if (entry == nullptr)
        return Status::InvalidParameter;
    auto* found = find_entry(handle, protocol);
    if (found == nullptr || found->interface != interface)
        return Status::NotFound;
    if (!disconnect_users(handle, *found))
        return Status::AccessDenied;
    for (auto** link = &entry->protocols; *link != nullptr; link = &(*link)->next) {
        if (*link != found)
            continue;
        *link = found->next;
        while (auto* open = found->opens) {
            found->opens = open->next;
            (void)free_pool(open);
        }
        (void)free_pool(found);
        break;
    }
    if (entry->protocols == nullptr)
        drop_handle(entry);
    return Status::Success;
}

Status locate_device_path(const Guid& protocol, const efi::DevicePath*& path,
                          Handle& handle) noexcept {
    std::uint64_t best = 0;
    bool found = false;
    for (Handle h = next_handle_with(nullptr, protocol); h != nullptr;
         h = next_handle_with(h, protocol)) {
        const auto* own = find_interface<efi::DevicePath>(h, efi::guid::device_path);
        if (own == nullptr)
            continue;
        const auto head = efi::head_length(own, path);
        if (!head || (found && *head < best))
            continue;
        best = *head;
        handle = h;
        found = true;
    }
    if (!found)
        return Status::NotFound;
    path = efi::at_offset(path, best);
    return Status::Success;
}

void fill_handle_services(efi::BootServices& table) noexcept {
    table.install_protocol_interface = efi_install;
    table.reinstall_protocol_interface = efi_reinstall;
    table.uninstall_protocol_interface = efi_uninstall;
    table.register_protocol_notify = efi_register_notify;
    table.locate_handle = efi_locate_handle;
    table.locate_handle_buffer = efi_locate_handle_buffer;
    table.locate_protocol = efi_locate_protocol;
    table.locate_device_path = efi_locate_device_path;
    table.install_multiple_protocol_interfaces = efi_install_multiple;
    table.uninstall_multiple_protocol_interfaces = efi_uninstall_multiple;
}

}  // namespace masu::firmware
