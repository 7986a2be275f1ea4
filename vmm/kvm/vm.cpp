#include "vmm/kvm/vm.hpp"

#include <sys/ioctl.h>

#include "vmm/kvm/counted_list.hpp"
#include "vmm/layout.hpp"

namespace masu::kvm {

namespace {

Result<Fd> create_vm(const Kvm& kvm) {
    for (;;) {
        const int fd = ::ioctl(kvm.fd(), KVM_CREATE_VM, 0);
        if (fd >= 0)
            return Fd(fd);
        const int error = errno;
        if (error == EINTR)
            continue;
        if (error == EBUSY)
            return fail_errno(error,
                              "KVM cannot make a VM because another hypervisor holds the CPU's "
                              "virtualization: stop it (VirtualBox, VMware)");
        return fail_errno(error, "KVM cannot make a VM");
    }
}

Result<> enable(int vm, std::uint32_t capability, std::uint64_t argument, const char* what) {
    kvm_enable_cap request{};
    request.cap = capability;
    request.args[0] = argument;
    if (::ioctl(vm, KVM_ENABLE_CAP, &request) < 0)
        return fail_errno(errno, "KVM cannot enable {}", what);
    return {};
}

}  // namespace

Result<std::unique_ptr<Vm>> Vm::create(const Kvm& kvm) {
    std::unique_ptr<Vm> vm(new Vm(TRY(create_vm(kvm))));
    // Intel's real-mode and unpaged emulation needs guest-physical room of its own; others ignore
    // it.
    if (::ioctl(vm->fd(), KVM_SET_TSS_ADDR, layout::kvm_tss) < 0)
        return fail_errno(errno, "KVM does not take the TSS address {:#x}", layout::kvm_tss);
    const std::uint64_t identity_map = layout::kvm_identity_map;
    if (::ioctl(vm->fd(), KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0)
        return fail_errno(errno, "KVM does not take the identity map address {:#x}", identity_map);
    TRY(enable(vm->fd(), KVM_CAP_SPLIT_IRQCHIP, layout::ioapic_pins,
               "the split interrupt controller"));
    constexpr int x2apic = KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK;
    if ((kvm.capability(KVM_CAP_X2APIC_API) & x2apic) == x2apic)
        TRY(enable(vm->fd(), KVM_CAP_X2APIC_API, x2apic, "32-bit APIC ids"));
    return vm;
}

namespace {

kvm_userspace_memory_region slot_of(unsigned index, const GuestMemory::Region& region) {
    kvm_userspace_memory_region slot{};
    slot.slot = index;
    slot.guest_phys_addr = region.start.value;
    slot.memory_size = region.bytes.size();
    slot.userspace_addr = reinterpret_cast<std::uintptr_t>(region.bytes.data());
    return slot;
}

}  // namespace

Result<> Vm::map_memory(const GuestMemory& memory) {
    for (const auto& region : memory.regions()) {
        auto slot = slot_of(slots_, region);
        if (::ioctl(fd(), KVM_SET_USER_MEMORY_REGION, &slot) < 0)
            return fail_errno(errno, "KVM cannot map {} bytes of guest memory at {:#x}",
                              region.bytes.size(), region.start.value);
        ++slots_;
    }
    return {};
}

Result<> Vm::set_dirty_log(const GuestMemory& memory, bool on) {
    for (unsigned index = 0; index < memory.regions().size(); ++index) {
        auto slot = slot_of(index, memory.regions()[index]);
        slot.flags = on ? KVM_MEM_LOG_DIRTY_PAGES : 0;
        if (::ioctl(fd(), KVM_SET_USER_MEMORY_REGION, &slot) < 0)
            return fail_errno(errno, "KVM cannot log which pages the guest writes to");
    }
    return {};
}

Result<> Vm::set_manual_dirty_log() {
    return enable(fd(), KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE,
                  "write protection on request");
}

Result<> Vm::dirty_log(unsigned region, std::span<std::uint64_t> words) const {
    kvm_dirty_log log{};
    log.slot = region;
    log.dirty_bitmap = words.data();
    if (::ioctl(fd(), KVM_GET_DIRTY_LOG, &log) < 0)
        return fail_errno(errno, "KVM does not tell which pages the guest wrote to");
    return {};
}

Result<> Vm::clear_dirty_log(unsigned region, std::uint64_t first, std::uint32_t pages,
                             std::span<const std::uint64_t> words) {
    kvm_clear_dirty_log log{};
    log.slot = region;
    log.num_pages = pages;
    log.first_page = first;
    // The kernel only reads it.
    log.dirty_bitmap = const_cast<std::uint64_t*>(words.data());
    if (::ioctl(fd(), KVM_CLEAR_DIRTY_LOG, &log) < 0)
        return fail_errno(errno, "KVM cannot start its log of written pages anew");
    return {};
}

namespace {

kvm_ioeventfd io_event(IoSpace space, std::uint64_t address, unsigned size,
                       std::optional<std::uint64_t> value, const EventFd& event) {
    kvm_ioeventfd request{};
    request.addr = address;
    request.len = size;
    request.fd = event.fd();
    if (space == IoSpace::Port)
        request.flags |= KVM_IOEVENTFD_FLAG_PIO;
    if (value) {
        request.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
        request.datamatch = *value;
    }
    return request;
}

}  // namespace

Result<> Vm::add_io_event(IoSpace space, std::uint64_t address, unsigned size,
                          std::optional<std::uint64_t> value, const EventFd& event) {
    auto request = io_event(space, address, size, value, event);
    if (::ioctl(fd(), KVM_IOEVENTFD, &request) < 0)
        return fail_errno(errno, "KVM cannot put a doorbell at {:#x}", address);
    return {};
}

void Vm::remove_io_event(IoSpace space, std::uint64_t address, unsigned size,
                         std::optional<std::uint64_t> value, const EventFd& event) {
    auto request = io_event(space, address, size, value, event);
    request.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
    // Fails only where no such doorbell is, which is what is asked for.
    static_cast<void>(::ioctl(fd(), KVM_IOEVENTFD, &request));
}

Result<> Vm::add(std::uint64_t address, const EventFd& event) {
    return add_io_event(IoSpace::Mmio, address, 0, std::nullopt, event);
}

void Vm::remove(std::uint64_t address, const EventFd& event) {
    remove_io_event(IoSpace::Mmio, address, 0, std::nullopt, event);
}

Result<kvm_clock_data> Vm::clock() const {
    kvm_clock_data data{};
    if (::ioctl(fd(), KVM_GET_CLOCK, &data) < 0)
        return fail_errno(errno, "KVM does not tell the guest's clock");
    return data;
}

Result<> Vm::set_clock(const kvm_clock_data& clock) {
    kvm_clock_data data = clock;
    if (::ioctl(fd(), KVM_SET_CLOCK, &data) < 0)
        return fail_errno(errno, "KVM does not take the guest's clock");
    return {};
}

Result<> Vm::set_routes(std::span<const kvm_irq_routing_entry> routes) {
    using List = CountedList<kvm_irq_routing_entry>;
    List table(routes);
    if (::ioctl(fd(), KVM_SET_GSI_ROUTING, table.data()) < 0)
        return fail_errno(errno, "KVM does not take a table of {} interrupt routes", routes.size());
    return {};
}

Result<> Vm::attach(unsigned gsi, const EventFd& event) {
    kvm_irqfd request{};
    request.fd = static_cast<std::uint32_t>(event.fd());
    request.gsi = gsi;
    if (::ioctl(fd(), KVM_IRQFD, &request) < 0)
        return fail_errno(errno, "KVM cannot attach an eventfd to interrupt {}", gsi);
    return {};
}

void Vm::detach(unsigned gsi, const EventFd& event) noexcept {
    kvm_irqfd request{};
    request.fd = static_cast<std::uint32_t>(event.fd());
    request.gsi = gsi;
    request.flags = KVM_IRQFD_FLAG_DEASSIGN;
    static_cast<void>(::ioctl(fd(), KVM_IRQFD, &request));
}

void Vm::send(const MsiMessage& message) noexcept {
    kvm_msi request{};
    request.address_lo = static_cast<std::uint32_t>(message.address);
    request.address_hi = static_cast<std::uint32_t>(message.address >> 32);
    request.data = message.data;
    // Zero or less: the guest blocked the message (no such LAPIC, vector below 16). Its own affair.
    static_cast<void>(::ioctl(fd(), KVM_SIGNAL_MSI, &request));
}

}  // namespace masu::kvm
