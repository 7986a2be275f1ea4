// OpenProtocol and its kin, and the connection of drivers to controllers (UEFI 7.3).
#include "firmware/services/handle_entry.hpp"
#include "firmware/services/memory.hpp"

namespace masu::firmware {

using efi::Guid;
using efi::Handle;
using efi::Status;

namespace {

bool is_exclusive(const OpenRecord& record) noexcept {
    return (record.attributes & efi::open_exclusive) != 0;
}
bool is_by_driver(const OpenRecord& record) noexcept {
    return (record.attributes & efi::open_by_driver) != 0;
}

// Lets the driver that holds the protocol stop; the record goes when it closes the protocol.
void stop_driver(Handle controller, Handle agent, Handle child = nullptr) noexcept {
    auto* binding = find_interface<efi::DriverBinding>(agent, efi::guid::driver_binding);
    if (binding == nullptr)
        return;
    if (child != nullptr)
        (void)binding->stop(binding, controller, 1, &child);
    (void)binding->stop(binding, controller, 0, nullptr);
}

Status check_conflicts(ProtocolEntry& entry, Handle handle, Handle agent, Handle controller,
                       std::uint32_t attributes) noexcept {
    const bool exclusive = (attributes & efi::open_exclusive) != 0;
    const bool by_driver = (attributes & efi::open_by_driver) != 0;
    for (auto* open = entry.opens; open != nullptr; open = open->next)
        if (open->agent == agent && open->controller == controller &&
            open->attributes == attributes && by_driver)
            return Status::AlreadyStarted;
    for (auto* open = entry.opens; open != nullptr; open = open->next)
        if (is_exclusive(*open) && (exclusive || by_driver))
            return Status::AccessDenied;
    if (by_driver && !exclusive)
        for (auto* open = entry.opens; open != nullptr; open = open->next)
            if (is_by_driver(*open))
                return Status::AccessDenied;
    if (exclusive && !disconnect_users(handle, entry))
        return Status::AccessDenied;
    return Status::Success;
}

Status record_open(ProtocolEntry& entry, Handle agent, Handle controller,
                   std::uint32_t attributes) noexcept {
    for (auto* open = entry.opens; open != nullptr; open = open->next) {
        if (open->agent == agent && open->controller == controller &&
            open->attributes == attributes) {
            ++open->count;
            return Status::Success;
        }
    }
    auto* added = make<OpenRecord>();
    if (added == nullptr)
        return Status::OutOfResources;
    *added = {entry.opens, agent, controller, attributes, 1};
    entry.opens = added;
    return Status::Success;
}

Status EFIAPI efi_open(Handle handle, const Guid* protocol, void** interface, Handle agent,
                       Handle controller, std::uint32_t attributes) {
    const bool test = attributes == efi::open_test_protocol;
    if (protocol == nullptr || find_handle(handle) == nullptr || (interface == nullptr && !test))
        return Status::InvalidParameter;
    switch (attributes) {
        case efi::open_by_handle_protocol:
        case efi::open_get_protocol:
        case efi::open_test_protocol:
            break;
        case efi::open_by_child_controller:
            if (!is_handle(agent) || !is_handle(controller) || controller == handle)
                return Status::InvalidParameter;
            break;
        case efi::open_by_driver:
        case efi::open_by_driver | efi::open_exclusive:
            if (!is_handle(agent) || !is_handle(controller))
                return Status::InvalidParameter;
            break;
        case efi::open_exclusive:
            if (!is_handle(agent))
                return Status::InvalidParameter;
            break;
        default:
            return Status::InvalidParameter;
    }
    auto* entry = find_entry(handle, *protocol);
    if (entry == nullptr) {
        if (interface != nullptr && !test)
            *interface = nullptr;
        return Status::Unsupported;
    }
    const auto conflict = check_conflicts(*entry, handle, agent, controller, attributes);
    if (conflict != Status::Success) {
        if (conflict == Status::AlreadyStarted && interface != nullptr)
            *interface = entry->interface;
        return conflict;
    }
    // The drivers that were disconnected may have taken the protocol along.
    entry = find_entry(handle, *protocol);
    if (entry == nullptr)
        return Status::Unsupported;
    if (!test)
        *interface = entry->interface;
    return agent == nullptr || test ? Status::Success
                                    : record_open(*entry, agent, controller, attributes);
}

Status EFIAPI efi_handle_protocol(Handle handle, const Guid* protocol, void** interface) {
    if (protocol == nullptr || interface == nullptr || find_handle(handle) == nullptr)
        return Status::InvalidParameter;
    const auto* entry = find_entry(handle, *protocol);
    *interface = entry == nullptr ? nullptr : entry->interface;
    return entry == nullptr ? Status::Unsupported : Status::Success;
}

Status EFIAPI efi_close(Handle handle, const Guid* protocol, Handle agent, Handle controller) {
    if (protocol == nullptr || find_handle(handle) == nullptr || !is_handle(agent) ||
        (controller != nullptr && !is_handle(controller)))
        return Status::InvalidParameter;
    auto* entry = find_entry(handle, *protocol);
    if (entry == nullptr)
        return Status::NotFound;
    bool closed = false;
    for (auto** link = &entry->opens; *link != nullptr;) {
        auto* open = *link;
        if (open->agent == agent && open->controller == controller) {
            *link = open->next;
            (void)free_pool(open);
            closed = true;
        } else {
            link = &open->next;
        }
    }
    return closed ? Status::Success : Status::NotFound;
}

Status EFIAPI efi_open_information(Handle handle, const Guid* protocol,
                                   efi::OpenProtocolInformation** buffer, std::uint64_t* count) {
    if (protocol == nullptr || buffer == nullptr || count == nullptr)
        return Status::InvalidParameter;
    const auto* entry = find_entry(handle, *protocol);
    if (entry == nullptr)
        return Status::NotFound;
    std::uint64_t n = 0;
    for (auto* open = entry->opens; open != nullptr; open = open->next)
        ++n;
    auto* list = static_cast<efi::OpenProtocolInformation*>(allocate_pool(
        efi::MemoryType::BootServicesData, (n == 0 ? 1 : n) * sizeof(**buffer)));
    if (list == nullptr)
        return Status::OutOfResources;
    *buffer = list;
    *count = n;
    for (auto* open = entry->opens; open != nullptr; open = open->next)
        *list++ = {open->agent, open->controller, open->attributes, open->count};
    return Status::Success;
}

Status EFIAPI efi_protocols_per_handle(Handle handle, Guid*** buffer, std::uint64_t* count) {
    auto* entry = find_handle(handle);
    if (entry == nullptr || buffer == nullptr || count == nullptr)
        return Status::InvalidParameter;
    std::uint64_t n = 0;
    for (auto* p = entry->protocols; p != nullptr; p = p->next)
        ++n;
    auto** list =
        static_cast<Guid**>(allocate_pool(efi::MemoryType::BootServicesData, n * sizeof(Guid*)));
    if (list == nullptr)
        return Status::OutOfResources;
    *buffer = list;
    *count = n;
    for (auto* p = entry->protocols; p != nullptr; p = p->next)
        *list++ = &p->guid;
    return Status::Success;
}

bool connect(efi::DriverBinding& binding, Handle controller, efi::DevicePath* rest) noexcept {
    return binding.supported(&binding, controller, rest) == Status::Success &&
           binding.start(&binding, controller, rest) == Status::Success;
}

// Recursion of 7.3.12 is left out: children that a driver makes here are not connected in turn,
// since every driver present is one that a loader brought and connects itself.
Status EFIAPI efi_connect(Handle controller, Handle* images, efi::DevicePath* rest,
                          efi::Bool /*recursive*/) {
    if (!is_handle(controller))
        return Status::InvalidParameter;
    bool connected = false;
    for (; images != nullptr && *images != nullptr; ++images) {
        auto* binding = find_interface<efi::DriverBinding>(*images, efi::guid::driver_binding);
        connected = (binding != nullptr && connect(*binding, controller, rest)) || connected;
    }
    for (Handle h = next_handle_with(nullptr, efi::guid::driver_binding); h != nullptr;
         h = next_handle_with(h, efi::guid::driver_binding)) {
        auto* binding = find_interface<efi::DriverBinding>(h, efi::guid::driver_binding);
        connected = connect(*binding, controller, rest) || connected;
    }
    if (connected)
        return Status::Success;
    // What the firmware's own drivers serve is connected from the start.
    return find_entry(controller, efi::guid::block_io) != nullptr ? Status::Success
                                                                  : Status::NotFound;
}

Status EFIAPI efi_disconnect(Handle controller, Handle driver, Handle child) {
    auto* entry = find_handle(controller);
    if (entry == nullptr || (driver != nullptr && !is_handle(driver)) ||
        (child != nullptr && !is_handle(child)))
        return Status::InvalidParameter;
    for (Handle h = next_handle_with(nullptr, efi::guid::driver_binding); h != nullptr;
         h = next_handle_with(h, efi::guid::driver_binding)) {
        bool uses = false;
        for (auto* p = entry->protocols; p != nullptr; p = p->next)
            for (auto* open = p->opens; open != nullptr; open = open->next)
                uses = uses || (is_by_driver(*open) && open->agent == h);
        if (uses && (driver == nullptr || driver == h))
            stop_driver(controller, h, child);
        if (find_handle(controller) != entry)
            break;
    }
    return Status::Success;
}

}  // namespace

bool disconnect_users(Handle handle, ProtocolEntry& protocol) noexcept {
    constexpr int limit = 64;
    for (int i = 0; i < limit; ++i) {
        const OpenRecord* user = nullptr;
        for (auto* open = protocol.opens; open != nullptr && user == nullptr; open = open->next)
            if (is_by_driver(*open))
                user = open;
        if (user == nullptr)
            break;
        const Handle agent = user->agent;
        stop_driver(handle, agent);
        for (auto* open = protocol.opens; open != nullptr; open = open->next)
            if (is_by_driver(*open) && open->agent == agent)
                return false;
    }
    for (auto* open = protocol.opens; open != nullptr; open = open->next)
        if (is_exclusive(*open))
            return false;
    return true;
}

void close_all_of(Handle agent) noexcept {
    for (Handle h = next_handle(nullptr); h != nullptr; h = next_handle(h)) {
        for (auto* p = find_handle(h)->protocols; p != nullptr; p = p->next) {
            for (auto** link = &p->opens; *link != nullptr;) {
                auto* open = *link;
                if (open->agent == agent) {
                    *link = open->next;
                    (void)free_pool(open);
                } else {
                    link = &open->next;
                }
            }
        }
    }
}

void fill_open_services(efi::BootServices& table) noexcept {
    table.open_protocol = efi_open;
    table.close_protocol = efi_close;
    table.handle_protocol = efi_handle_protocol;
    table.open_protocol_information = efi_open_information;
    table.protocols_per_handle = efi_protocols_per_handle;
    table.connect_controller = efi_connect;
    table.disconnect_controller = efi_disconnect;
}

}  // namespace masu::firmware
