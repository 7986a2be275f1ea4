// The layout of the fixed devices in a snapshot: plain data, pinned in the source file.
#pragma once

#include "base/plain_data.hpp"
#include "devices/legacy/i8042.hpp"
#include "devices/legacy/ioapic.hpp"
#include "devices/legacy/rtc.hpp"
#include "devices/legacy/serial.hpp"

namespace masu::legacy {

void put(PlainWriter& writer, const IoapicState& state);
void put(PlainWriter& writer, const RtcState& state);
void put(PlainWriter& writer, const I8042State& state);
void put(PlainWriter& writer, const SerialState& state);

// Values beyond what the device knows are complaints to the reader.
[[nodiscard]] IoapicState get_ioapic(PlainReader& reader);
[[nodiscard]] RtcState get_rtc(PlainReader& reader);
[[nodiscard]] I8042State get_i8042(PlainReader& reader);
[[nodiscard]] SerialState get_serial(PlainReader& reader);

}  // namespace masu::legacy
