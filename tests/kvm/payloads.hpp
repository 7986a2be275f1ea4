// The payloads of guest/payloads, as linked into this program.
#pragma once

#include <span>

// The names are objcopy's.
#define MASU_PAYLOAD(name)                                       \
    extern "C" const char _binary_##name##_start;                \
    extern "C" const char _binary_##name##_end;                  \
    namespace masu::test {                                       \
    inline std::span<const char> name##_payload() {              \
        return {&_binary_##name##_start, &_binary_##name##_end}; \
    }                                                            \
    }

MASU_PAYLOAD(ports)
MASU_PAYLOAD(mmio)
MASU_PAYLOAD(msi)
MASU_PAYLOAD(ioapic)
MASU_PAYLOAD(timer)
MASU_PAYLOAD(smp)
MASU_PAYLOAD(triple_fault)
MASU_PAYLOAD(spin)
MASU_PAYLOAD(block)
MASU_PAYLOAD(clone)
MASU_PAYLOAD(reset)
MASU_PAYLOAD(snapshot)
MASU_PAYLOAD(out)
MASU_PAYLOAD(pages)
