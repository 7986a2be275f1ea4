// Devices behind virtio-pci: functions of one PCI root, each with its bank of MSI-X interrupts.
#include "vmm/virtio_pci_devices.hpp"

#include "devices/pci/root.hpp"
#include "devices/virtio/pci_transport.hpp"
#include "vmm/layout.hpp"

namespace masu {
namespace {

class VirtioPciDevices final : public VirtioDevices {
  public:
    explicit VirtioPciDevices(VirtioHost host)
        : host_(std::move(host)),
          root_(host_.mmio, {.start = layout::pci_mmio32, .end = layout::pci_mmio32_end},
                host_.metrics, host_.log.with_component("pci")) {}
    ~VirtioPciDevices() override;

    [[nodiscard]] Result<> put_on_buses();
    [[nodiscard]] Result<> attach(const std::string& id,
                                  std::unique_ptr<virtio::Device> device) override;
    [[nodiscard]] Result<> register_doorbells() override;
    [[nodiscard]] Result<SavedVirtioDevices> save() override;
    [[nodiscard]] Result<> restore(const SavedVirtioDevices& saved) override;

  private:
    // Declared so that the transport goes first: it still signals its bank while the device ends.
    struct Slot {
        std::string id;
        std::unique_ptr<MsiBank> bank;
        std::unique_ptr<virtio::Device> device;
        std::unique_ptr<virtio::PciTransport> transport;
    };
    VirtioHost host_;
    pci::Root root_;
    std::vector<Slot> slots_;
    std::vector<unsigned> numbers_;  // of the functions on the bus
};

VirtioPciDevices::~VirtioPciDevices() {
    for (const unsigned number : numbers_)
        root_.remove(number);
}

Result<> VirtioPciDevices::put_on_buses() {
    TRY(host_.mmio.insert(layout::pci_ecam, layout::pci_ecam_size, root_.ecam(), "PCI ECAM"));
    return host_.ports.insert(layout::pci_config_port, pci::config_ports, root_.ports(),
                              "PCI configuration ports");
}

Result<> VirtioPciDevices::attach(const std::string& id, std::unique_ptr<virtio::Device> device) {
    Slot slot{.id = id, .bank = nullptr, .device = std::move(device), .transport = nullptr};
    slot.bank = TRY(host_.routes.create_bank(virtio::PciTransport::vectors_for(*slot.device)));
    slot.transport =
        TRY(virtio::PciTransport::create(id, *slot.device, host_.memory, host_.loop, *slot.bank,
                                         &host_.vm, host_.metrics, host_.log));
    slots_.push_back(std::move(slot));
    return {};
}

// A function's BAR decodes as soon as the function is on the bus, and its doorbells with it.
Result<> VirtioPciDevices::register_doorbells() {
    for (auto& slot : slots_)
        numbers_.push_back(TRY(root_.add(*slot.transport)));
    return {};
}

Result<SavedVirtioDevices> VirtioPciDevices::save() {
    SavedVirtioDevices saved;
    for (std::size_t i = 0; i < slots_.size(); ++i) {
        auto function = TRY(slots_[i].transport->save_function());
        function.number = static_cast<std::uint8_t>(numbers_[i]);
        saved.functions.emplace_back(slots_[i].id, std::move(function));
    }
    saved.root = root_.save();
    return saved;
}

// All functions before the root maps a BAR: doorbells go where they belong at once.
Result<> VirtioPciDevices::restore(const SavedVirtioDevices& saved) {
    TRY(check_same_devices(slots_, saved.functions));
    for (std::size_t i = 0; i < slots_.size(); ++i) {
        const auto& function = saved.functions[i].second;
        TRY(slots_[i].transport->restore_function(function));
        TRY(root_.put_back(*slots_[i].transport, function.number));
        numbers_.push_back(function.number);
    }
    TRY(host_.routes.commit());
    root_.restore(saved.root);
    return {};
}

}  // namespace

Result<std::unique_ptr<VirtioDevices>> make_virtio_pci_devices(VirtioHost host) {
    auto devices = std::make_unique<VirtioPciDevices>(std::move(host));
    TRY(devices->put_on_buses());
    return devices;
}

}  // namespace masu
