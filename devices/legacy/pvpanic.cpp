#include "devices/legacy/pvpanic.hpp"

#include <utility>

namespace masu::legacy {

std::uint8_t Pvpanic::read_register(std::uint64_t) {
    return std::to_underlying(Event::Panicked) | std::to_underlying(Event::CrashLoaded);
}

void Pvpanic::write_register(std::uint64_t, std::uint8_t value) {
    for (const auto event : {Event::Panicked, Event::CrashLoaded})
        if ((value & std::to_underlying(event)) != 0)
            report_(event);
}

}  // namespace masu::legacy
