#include "vmm/snapshot/machine_state.hpp"

#include <algorithm>
#include <array>

#include "base/atomic_file.hpp"
#include "base/bytes.hpp"
#include "devices/legacy/saved_state.hpp"
#include "vmm/config_check.hpp"
#include "vmm/snapshot/state_file.hpp"

namespace masu::snapshot {

namespace {

// KVM's structures are its ABI; a header that changed one would change this format.
static_assert(PlainData<kvm_regs> && sizeof(kvm_regs) == 144);
static_assert(PlainData<kvm_sregs> && sizeof(kvm_sregs) == 312);
static_assert(PlainData<kvm_xcrs> && sizeof(kvm_xcrs) == 392);
static_assert(PlainData<kvm_debugregs> && sizeof(kvm_debugregs) == 128);
static_assert(PlainData<kvm_lapic_state> && sizeof(kvm_lapic_state) == 1024);
static_assert(PlainData<kvm_vcpu_events> && sizeof(kvm_vcpu_events) == 64);
static_assert(PlainData<kvm_msr_entry> && sizeof(kvm_msr_entry) == 16);
static_assert(PlainData<kvm_cpuid_entry2> && sizeof(kvm_cpuid_entry2) == 40);

constexpr std::size_t max_config = 1 << 20;
constexpr std::size_t max_cpuid_leaves = 256;
constexpr std::size_t max_msrs = 4096;
constexpr std::size_t max_xsave = 64 * KiB;
constexpr std::size_t max_id = 64;
constexpr std::size_t max_metadata = 16 * MiB;
constexpr std::size_t max_host = 256;

struct SavedMachine {
    std::uint64_t memory_bytes;
    std::uint64_t wall_time;
    std::uint64_t guest_clock;
    std::uint64_t generation_id;
    std::uint32_t vcpu_count;
    std::uint32_t device_count;
    std::uint8_t transport;
    std::uint8_t panicked;
    std::array<std::uint8_t, 6> reserved;
};
static_assert(PlainData<SavedMachine> && sizeof(SavedMachine) == 48);

struct SavedVcpuHead {
    std::uint32_t mp_state;
    std::uint32_t tsc_khz;
    std::uint32_t has_pdptrs;
    std::uint32_t reserved;
    std::array<std::uint64_t, 4> pdptrs;
};
static_assert(PlainData<SavedVcpuHead> && sizeof(SavedVcpuHead) == 48);

struct SavedPower {
    std::uint32_t ged_pending;
    std::uint32_t sleep_control;
};
static_assert(PlainData<SavedPower> && sizeof(SavedPower) == 8);

struct SavedInterfaceHead {
    net::MacAddress mac;
    std::uint8_t has_firewall;
    std::uint8_t reserved;
};
static_assert(PlainData<SavedInterfaceHead> && sizeof(SavedInterfaceHead) == 8);
static_assert(offsetof(SavedInterfaceHead, has_firewall) == 6);

template <class Fill>
std::vector<std::byte> section(Fill fill) {
    PlainWriter writer;
    fill(writer);
    return std::move(writer).take();
}

void put(PlainWriter& writer, const kvm::VcpuRegisters& registers) {
    writer.put(SavedVcpuHead{.mp_state = registers.mp_state,
                             .tsc_khz = registers.tsc_khz,
                             .has_pdptrs = registers.has_pdptrs,
                             .reserved = 0,
                             .pdptrs = std::to_array(registers.pdptrs)});
    writer.put(registers.regs);
    writer.put(registers.sregs);
    writer.put(registers.xcrs);
    writer.put(registers.debugregs);
    writer.put(registers.lapic);
    writer.put(registers.events);
    writer.put_list(std::span(registers.xsave));
    writer.put_list(std::span(registers.msrs));
}

kvm::VcpuRegisters get_registers(PlainReader& reader) {
    kvm::VcpuRegisters registers;
    const auto head = reader.get<SavedVcpuHead>();
    registers.mp_state = head.mp_state;
    registers.tsc_khz = head.tsc_khz;
    registers.has_pdptrs = head.has_pdptrs != 0;
    std::ranges::copy(head.pdptrs, registers.pdptrs);
    registers.regs = reader.get<kvm_regs>();
    registers.sregs = reader.get<kvm_sregs>();
    registers.xcrs = reader.get<kvm_xcrs>();
    registers.debugregs = reader.get<kvm_debugregs>();
    registers.lapic = reader.get<kvm_lapic_state>();
    registers.events = reader.get<kvm_vcpu_events>();
    registers.xsave = reader.get_list<std::byte>(max_xsave);
    registers.msrs = reader.get_list<kvm_msr_entry>(max_msrs);
    if (registers.xcrs.nr_xcrs > KVM_MAX_XCRS)
        reader.complain(
            fmt::format("it lists {} extended control registers", registers.xcrs.nr_xcrs));
    return registers;
}

void put(PlainWriter& writer, const SavedPlatform& platform) {
    legacy::put(writer, platform.ioapic);
    legacy::put(writer, platform.rtc);
    legacy::put(writer, platform.i8042);
    legacy::put(writer, platform.com1);
    writer.put(
        SavedPower{.ged_pending = platform.ged_pending, .sleep_control = platform.sleep_control});
}

SavedPlatform get_platform(PlainReader& reader) {
    SavedPlatform platform;
    platform.ioapic = legacy::get_ioapic(reader);
    platform.rtc = legacy::get_rtc(reader);
    platform.i8042 = legacy::get_i8042(reader);
    platform.com1 = legacy::get_serial(reader);
    const auto power = reader.get<SavedPower>();
    platform.ged_pending = power.ged_pending;
    platform.sleep_control = static_cast<std::uint8_t>(power.sleep_control);
    return platform;
}

void put(PlainWriter& writer, const SavedInterface& interface) {
    writer.put_text(interface.id);
    writer.put(SavedInterfaceHead{
        .mac = interface.mac, .has_firewall = interface.firewall.has_value(), .reserved = 0});
    if (interface.firewall)
        writer.put_list(std::span(*interface.firewall));
}

SavedInterface get_interface(PlainReader& reader) {
    SavedInterface interface;
    interface.id = reader.get_text(max_id);
    const auto head = reader.get<SavedInterfaceHead>();
    interface.mac = head.mac;
    if (head.has_firewall > 1 || head.reserved != 0)
        reader.complain("its marks are none of this version");
    if (head.has_firewall == 1)
        interface.firewall = reader.get_list<std::byte>(max_saved_firewall);
    return interface;
}

// Sections of one kind have indices 0, 1, 2, ... in the order of the file.
class Sections {
  public:
    explicit Sections(std::vector<Section> sections) : sections_(std::move(sections)) {}

    [[nodiscard]] std::size_t count(SectionKind kind) const {
        return static_cast<std::size_t>(std::ranges::count(sections_, kind, &Section::kind));
    }
    // get(reader) -> value.
    template <class Get>
    [[nodiscard]] auto read(SectionKind kind, std::uint32_t index, Get get)
        -> Result<decltype(get(std::declval<PlainReader&>()))> {
        const auto found = std::ranges::find_if(sections_, [&](const Section& section) {
            return section.kind == kind && section.index == index;
        });
        if (found == sections_.end())
            return fail("the snapshot's state file is damaged: {} is missing",
                        Section{.kind = kind, .index = index, .bytes = {}}.name());
        PlainReader reader(found->bytes, found->name());
        auto value = get(reader);
        TRY(reader.finish());
        return value;
    }

  private:
    std::vector<Section> sections_;
};

Result<> check_vcpu(const SavedVcpu& vcpu) {
    constexpr std::uint32_t last_mp_state = 9;  // KVM_MP_STATE_AP_RESET_HOLD
    if (vcpu.registers.mp_state > last_mp_state)
        return fail("the snapshot holds a vCPU in state {}, which KVM does not have",
                    vcpu.registers.mp_state);
    return {};
}

Result<> read_devices(Sections& sections, MachineState& state, std::uint32_t count) {
    const bool pci = state.transport == Transport::Pci;
    const auto kind = pci ? SectionKind::PciFunction : SectionKind::MmioWindow;
    if (sections.count(kind) != count)
        return fail("the snapshot's state file is damaged: it lists {} devices and holds {}", count,
                    sections.count(kind));
    for (std::uint32_t i = 0; i < count; ++i) {
        if (pci)
            state.devices.functions.push_back(TRY(sections.read(kind, i, [](PlainReader& reader) {
                auto id = reader.get_text(max_id);
                return std::pair(std::move(id), virtio::get_pci_function(reader));
            })));
        else
            state.devices.windows.push_back(TRY(sections.read(kind, i, [](PlainReader& reader) {
                auto id = reader.get_text(max_id);
                return std::pair(std::move(id), virtio::get_mmio_window(reader));
            })));
    }
    if (pci)
        state.devices.root.config_address =
            TRY(sections.read(SectionKind::PciRoot, 0,
                              [](PlainReader& reader) { return reader.get<std::uint32_t>(); }));
    return {};
}

Result<> read_network(Sections& sections, MachineState& state) {
    const auto count = sections.count(SectionKind::Interface);
    if (count > max_network_interfaces)
        return fail("the snapshot's machine has {} network interfaces, and {} is the most", count,
                    max_network_interfaces);
    for (std::uint32_t i = 0; i < count; ++i) {
        auto interface = TRY(sections.read(SectionKind::Interface, i, get_interface));
        TRY(check_interface_id(interface.id));
        if (std::ranges::find(state.interfaces, interface.id, &SavedInterface::id) !=
            state.interfaces.end())
            return fail("the snapshot holds interface {} twice", interface.id);
        state.interfaces.push_back(std::move(interface));
    }
    if (sections.count(SectionKind::Metadata) != 0)
        state.metadata = TRY(sections.read(SectionKind::Metadata, 0, [](PlainReader& reader) {
            return reader.get_text(max_metadata);
        }));
    return {};
}

}  // namespace

std::vector<std::byte> encode(const MachineState& state) {
    StateWriter file;
    const auto& devices = state.devices;
    file.add(SectionKind::Config, 0,
             section([&](PlainWriter& writer) { writer.put_text(state.config); }));
    file.add(
        SectionKind::Machine, 0, section([&](PlainWriter& writer) {
            writer.put(SavedMachine{.memory_bytes = state.memory_bytes,
                                    .wall_time = state.wall_time,
                                    .guest_clock = state.guest_clock,
                                    .generation_id = state.generation_id,
                                    .vcpu_count = static_cast<std::uint32_t>(state.vcpus.size()),
                                    .device_count = static_cast<std::uint32_t>(
                                        devices.functions.size() + devices.windows.size()),
                                    .transport = static_cast<std::uint8_t>(state.transport),
                                    .panicked = state.panicked,
                                    .reserved = {}});
        }));
    for (std::uint32_t i = 0; i < state.vcpus.size(); ++i) {
        const auto& vcpu = state.vcpus[i];
        file.add(SectionKind::Cpuid, i,
                 section([&](PlainWriter& writer) { writer.put_list(std::span(vcpu.cpuid)); }));
        file.add(SectionKind::Vcpu, i,
                 section([&](PlainWriter& writer) { put(writer, vcpu.registers); }));
    }
    file.add(SectionKind::Platform, 0,
             section([&](PlainWriter& writer) { put(writer, state.platform); }));
    if (state.transport == Transport::Pci)
        file.add(SectionKind::PciRoot, 0,
                 section([&](PlainWriter& writer) { writer.put(devices.root.config_address); }));
    for (std::uint32_t i = 0; i < devices.functions.size(); ++i)
        file.add(SectionKind::PciFunction, i, section([&](PlainWriter& writer) {
                     writer.put_text(devices.functions[i].first);
                     virtio::put(writer, devices.functions[i].second);
                 }));
    for (std::uint32_t i = 0; i < devices.windows.size(); ++i)
        file.add(SectionKind::MmioWindow, i, section([&](PlainWriter& writer) {
                     writer.put_text(devices.windows[i].first);
                     virtio::put(writer, devices.windows[i].second);
                 }));
    for (std::uint32_t i = 0; i < state.interfaces.size(); ++i)
        file.add(SectionKind::Interface, i,
                 section([&](PlainWriter& writer) { put(writer, state.interfaces[i]); }));
    if (!state.metadata.empty())
        file.add(SectionKind::Metadata, 0,
                 section([&](PlainWriter& writer) { writer.put_text(state.metadata); }));
    if (!state.host.empty())
        file.add(SectionKind::Host, 0,
                 section([&](PlainWriter& writer) { writer.put_text(state.host); }));
    return file.file();
}

Result<MachineState> decode(std::span<const std::byte> file) {
    Sections sections(TRY(read_state_file(file)));
    MachineState state;
    state.config = TRY(sections.read(
        SectionKind::Config, 0, [](PlainReader& reader) { return reader.get_text(max_config); }));
    const auto machine = TRY(sections.read(
        SectionKind::Machine, 0, [](PlainReader& reader) { return reader.get<SavedMachine>(); }));
    if (machine.memory_bytes == 0 || machine.memory_bytes % MiB != 0 ||
        machine.memory_bytes > max_mem_size_mib * MiB)
        return fail("the snapshot's machine has {} bytes of memory, which no machine can have",
                    machine.memory_bytes);
    if (machine.vcpu_count == 0 || machine.vcpu_count > max_vcpus ||
        sections.count(SectionKind::Vcpu) != machine.vcpu_count)
        return fail("the snapshot's state file is damaged: it lists {} vCPUs and holds {}",
                    machine.vcpu_count, sections.count(SectionKind::Vcpu));
    if (machine.transport > static_cast<std::uint8_t>(Transport::Mmio))
        return fail("the snapshot's machine has transport {}, which does not exist",
                    machine.transport);
    state.memory_bytes = machine.memory_bytes;
    state.wall_time = machine.wall_time;
    state.guest_clock = machine.guest_clock;
    state.generation_id = machine.generation_id;
    state.transport = static_cast<Transport>(machine.transport);
    state.panicked = machine.panicked != 0;
    for (std::uint32_t i = 0; i < machine.vcpu_count; ++i) {
        SavedVcpu vcpu;
        vcpu.cpuid = TRY(sections.read(SectionKind::Cpuid, i, [](PlainReader& reader) {
            return reader.get_list<kvm_cpuid_entry2>(max_cpuid_leaves);
        }));
        vcpu.registers = TRY(sections.read(SectionKind::Vcpu, i, get_registers));
        TRY(check_vcpu(vcpu));
        state.vcpus.push_back(std::move(vcpu));
    }
    state.platform = TRY(sections.read(SectionKind::Platform, 0, get_platform));
    TRY(read_devices(sections, state, machine.device_count));
    TRY(read_network(sections, state));
    if (sections.count(SectionKind::Host) != 0)
        state.host = TRY(sections.read(
            SectionKind::Host, 0, [](PlainReader& reader) { return reader.get_text(max_host); }));
    return state;
}

std::vector<kvm::CpuidLeaves> shown_cpuid(const MachineState& state) {
    std::vector<kvm::CpuidLeaves> shown;
    for (const auto& vcpu : state.vcpus)
        shown.push_back(vcpu.cpuid);
    return shown;
}

Result<MachineState> load_state(const std::string& path, SnapshotId* id) {
    const auto text = TRY(read_file(path, max_state_size));
    auto state = decode(std::as_bytes(std::span(text)));
    if (!state)
        return in_context(path, std::move(state).error());
    if (id != nullptr)
        *id = id_of(std::as_bytes(std::span(text)));
    return state;
}

}  // namespace masu::snapshot
