#include "devices/virtio/saved_state.hpp"

namespace masu::virtio {

namespace {

static_assert(PlainData<pci::MsixEntry> && sizeof(pci::MsixEntry) == pci::msix_entry_size);
static_assert(sizeof(pci::ConfigState) == pci::config_space_size);

struct SavedPciRegisters {
    std::uint16_t config_vector;
    std::uint8_t isr;
    std::uint8_t number;
    std::uint8_t msix_enabled;
    std::uint8_t msix_function_masked;
    std::uint16_t reserved;
};
static_assert(PlainData<SavedPciRegisters> && sizeof(SavedPciRegisters) == 8);

constexpr std::size_t pending_words_max = (pci::msix_vectors_max + 63) / 64;

void put_core(PlainWriter& writer, const CoreState& core) {
    writer.put(core.registers);
    writer.put_list(std::span(core.queues));
    writer.put_list(std::span(core.device));
}

CoreState get_core(PlainReader& reader) {
    CoreState core;
    core.registers = reader.get<SavedRegisters>();
    core.queues = reader.get_list<SavedQueue>(max_saved_queues);
    core.device = reader.get_list<std::byte>(max_saved_device);
    return core;
}

}  // namespace

void put(PlainWriter& writer, const SavedPciFunction& state) {
    put_core(writer, state.core);
    writer.put(SavedPciRegisters{.config_vector = state.config_vector,
                                 .isr = state.isr,
                                 .number = state.number,
                                 .msix_enabled = state.msix.enabled,
                                 .msix_function_masked = state.msix.function_masked,
                                 .reserved = 0});
    writer.put_list(std::span(state.queue_vectors));
    writer.put_list(std::span(state.msix.table));
    writer.put_list(std::span(state.msix.pending));
    writer.put_raw(state.config.bytes);
}

SavedPciFunction get_pci_function(PlainReader& reader) {
    SavedPciFunction state;
    state.core = get_core(reader);
    const auto registers = reader.get<SavedPciRegisters>();
    state.config_vector = registers.config_vector;
    state.isr = registers.isr;
    state.number = registers.number;
    state.msix.enabled = registers.msix_enabled != 0;
    state.msix.function_masked = registers.msix_function_masked != 0;
    state.queue_vectors = reader.get_list<std::uint16_t>(max_saved_queues);
    state.msix.table = reader.get_list<pci::MsixEntry>(pci::msix_vectors_max);
    state.msix.pending = reader.get_list<std::uint64_t>(pending_words_max);
    state.config.bytes = reader.get<decltype(state.config.bytes)>();
    return state;
}

void put(PlainWriter& writer, const SavedMmioWindow& state) {
    put_core(writer, state.core);
    writer.put(state.interrupt_status);
}

SavedMmioWindow get_mmio_window(PlainReader& reader) {
    SavedMmioWindow state;
    state.core = get_core(reader);
    state.interrupt_status = reader.get<std::uint32_t>();
    return state;
}

}  // namespace masu::virtio
