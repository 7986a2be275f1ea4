// The DSDT's AML: the devices a guest cannot find by itself, power button and power-off.
#pragma once

#include "vmm/acpi/aml.hpp"
#include "vmm/acpi/tables.hpp"

namespace masu::acpi {

// The definition block, without the table header.
[[nodiscard]] Bytes build_dsdt_body(const Description& description);

}  // namespace masu::acpi
