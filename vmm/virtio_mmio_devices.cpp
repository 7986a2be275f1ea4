// Devices behind virtio-mmio: a window and an IOAPIC pin each, announced in ACPI.
#include "vmm/virtio_mmio_devices.hpp"

#include "devices/virtio/mmio_transport.hpp"
#include "vmm/layout.hpp"

namespace masu {
namespace {

class VirtioMmioDevices final : public VirtioDevices {
  public:
    explicit VirtioMmioDevices(VirtioHost host) : host_(std::move(host)) {}

    [[nodiscard]] Result<> attach(const std::string& id,
                                  std::unique_ptr<virtio::Device> device) override;
    [[nodiscard]] Result<> register_doorbells() override;
    [[nodiscard]] Result<SavedVirtioDevices> save() override;
    [[nodiscard]] Result<> restore(const SavedVirtioDevices& saved) override;
    [[nodiscard]] std::vector<acpi::VirtioMmioDevice> mmio_windows() const override;

  private:
    struct Slot {
        std::string id;
        acpi::VirtioMmioDevice window;
        std::unique_ptr<virtio::Device> device;
        std::unique_ptr<virtio::MmioTransport> transport;  // after device: destroyed first
    };
    VirtioHost host_;
    std::vector<Slot> slots_;
};

Result<> VirtioMmioDevices::attach(const std::string& id, std::unique_ptr<virtio::Device> device) {
    const auto index = slots_.size();
    if (index >= layout::virtio_mmio_slots)
        return fail("{} does not fit: virtio-mmio has room for {} devices; use the PCI transport",
                    id, layout::virtio_mmio_slots);
    constexpr unsigned pins = layout::ioapic_pins - layout::virtio_mmio_first_gsi;
    Slot slot{
        .id = id,
        .window = {.base = layout::virtio_mmio + index * layout::virtio_mmio_size,
                   .gsi = layout::virtio_mmio_first_gsi + static_cast<unsigned>(index % pins)},
        .device = std::move(device),
        .transport = nullptr};
    slot.transport = TRY(virtio::MmioTransport::create(id, *slot.device, host_.memory, host_.loop,
                                                       host_.ioapic.line(slot.window.gsi),
                                                       host_.metrics, host_.log));
    TRY(host_.mmio.insert(slot.window.base, layout::virtio_mmio_size, *slot.transport,
                          "virtio-mmio"));
    slots_.push_back(std::move(slot));
    return {};
}

Result<> VirtioMmioDevices::register_doorbells() {
    for (auto& slot : slots_) {
        auto& core = slot.transport->core();
        for (std::uint16_t queue = 0; queue < core.queue_count(); ++queue)
            TRY(host_.vm.add_io_event(kvm::IoSpace::Mmio,
                                      slot.window.base + virtio::MmioTransport::notify_offset, 4,
                                      queue, core.notify_event(queue)));
    }
    return {};
}

Result<SavedVirtioDevices> VirtioMmioDevices::save() {
    SavedVirtioDevices saved;
    for (auto& slot : slots_)
        saved.windows.emplace_back(slot.id, TRY(slot.transport->save()));
    return saved;
}

Result<> VirtioMmioDevices::restore(const SavedVirtioDevices& saved) {
    TRY(check_same_devices(slots_, saved.windows));
    for (std::size_t i = 0; i < slots_.size(); ++i)
        TRY(slots_[i].transport->restore(saved.windows[i].second));
    TRY(host_.routes.commit());
    return register_doorbells();
}

std::vector<acpi::VirtioMmioDevice> VirtioMmioDevices::mmio_windows() const {
    std::vector<acpi::VirtioMmioDevice> windows;
    for (const auto& slot : slots_)
        windows.push_back(slot.window);
    return windows;
}

}  // namespace

std::unique_ptr<VirtioDevices> make_virtio_mmio_devices(VirtioHost host) {
    return std::make_unique<VirtioMmioDevices>(std::move(host));
}

}  // namespace masu
