// Writes each ACPI table of a machine to its own file, for iasl: dump-tables FOLDER VCPUS PCI MMIO.
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string>

#include "base/bytes.hpp"
#include "vmm/acpi/tables.hpp"
#include "vmm/layout.hpp"

int main(int argc, char** argv) {
    using namespace masu;
    if (argc != 5)
        return 2;
    const std::string folder = argv[1];
    acpi::Description description;
    description.vcpus = static_cast<unsigned>(std::atoi(argv[2]));
    description.pci = std::atoi(argv[3]) != 0;
    const auto slots = static_cast<unsigned>(std::atoi(argv[4]));
    const auto pins = layout::ioapic_pins - layout::virtio_mmio_first_gsi;
    for (unsigned n = 0; n < slots; ++n)
        description.virtio_mmio.push_back({layout::virtio_mmio + n * layout::virtio_mmio_size,
                                           layout::virtio_mmio_first_gsi + n % pins});
    const auto built = acpi::build_tables(description);
    if (!built) {
        std::cerr << built.error().message << '\n';
        return 1;
    }
    for (std::size_t at = 0; at + 8 <= built->tables.size();) {
        const auto* table = built->tables.data() + at;
        const std::size_t size = load_unaligned<std::uint32_t>(table + 4);
        std::string text(size, '\0');
        std::memcpy(text.data(), table, size);
        std::ofstream(folder + "/" + text.substr(0, 4) + ".dat", std::ios::binary) << text;
        at = align_up(at + size, 16);
    }
    return 0;
}
