// Simple Text Input and Input Ex (UEFI 12.2, 12.3) from the serial console.
#include "firmware/platform/clock.hpp"
#include "firmware/platform/serial.hpp"
#include "firmware/protocols/install.hpp"
#include "firmware/protocols/key_decoder.hpp"
#include "firmware/services/events.hpp"

namespace masu::firmware {

using efi::InputKey;
using efi::KeyData;
using efi::Status;

namespace {

// Bytes of one sequence come together; a lone escape has nothing behind it for this long.
constexpr std::uint64_t sequence_gap = 50'000;  // 5 ms

constinit KeyDecoder decoder = {};
constinit std::uint64_t last_byte = 0;
constinit std::optional<InputKey> waiting = {};

bool has_key() noexcept {
    if (!waiting)
        waiting = read_key();
    return waiting.has_value();
}

std::optional<InputKey> take_key() noexcept {
    if (!has_key())
        return std::nullopt;
    const auto key = waiting;
    waiting.reset();
    return key;
}

void EFIAPI check_for_key(efi::Event event, void*) {
    if (has_key())
        (void)signal_event(event);
}

Status EFIAPI reset(efi::SimpleTextInput*, efi::Bool) {
    constexpr int most = 4096;
    for (int i = 0; i < most && serial::read(); ++i)
        ;
    waiting.reset();
    decoder = {};
    return Status::Success;
}

Status EFIAPI reset_extended(efi::SimpleTextInputEx*, efi::Bool extended) {
    return reset(nullptr, extended);
}

Status EFIAPI efi_read_key(efi::SimpleTextInput*, InputKey* key) {
    if (key == nullptr)
        return Status::InvalidParameter;
    poll_timers();
    const auto typed = take_key();
    if (!typed)
        return Status::NotReady;
    *key = *typed;
    return Status::Success;
}

Status EFIAPI efi_read_key_extended(efi::SimpleTextInputEx*, KeyData* data) {
    if (data == nullptr)
        return Status::InvalidParameter;
    poll_timers();
    // A serial line tells nothing of Shift and its like: neither state is marked as valid.
    *data = {};
    const auto typed = take_key();
    if (!typed)
        return Status::NotReady;
    data->key = *typed;
    return Status::Success;
}

Status EFIAPI set_state(efi::SimpleTextInputEx*, std::uint8_t* state) {
    return state == nullptr ? Status::InvalidParameter : Status::Unsupported;
}

Status EFIAPI register_notify(efi::SimpleTextInputEx*, KeyData* data,
                              Status(EFIAPI* notify)(KeyData*), void** handle) {
    return data == nullptr || notify == nullptr || handle == nullptr ? Status::InvalidParameter
                                                                     : Status::OutOfResources;
}

Status EFIAPI unregister_notify(efi::SimpleTextInputEx*, void*) {
    return Status::InvalidParameter;
}

}  // namespace

std::optional<InputKey> read_key() noexcept {
    constexpr int most = 64;
    for (int i = 0; i < most; ++i) {
        const auto byte = serial::read();
        if (!byte)
            break;
        last_byte = clock::now();
        if (const auto key = decoder.feed(*byte))
            return key;
    }
    if (decoder.in_sequence() && clock::now() - last_byte > sequence_gap)
        return decoder.idle();
    return std::nullopt;
}

bool fill_text_input(efi::SimpleTextInput& input, efi::SimpleTextInputEx& extended) noexcept {
    input = {.reset = reset,
             .read_key = efi_read_key,
             .wait_for_key = make_wait_event(check_for_key, nullptr)};
    extended = {.reset = reset_extended,
                .read_key = efi_read_key_extended,
                .wait_for_key = make_wait_event(check_for_key, nullptr),
                .set_state = set_state,
                .register_key_notify = register_notify,
                .unregister_key_notify = unregister_notify};
    return input.wait_for_key != nullptr && extended.wait_for_key != nullptr;
}

}  // namespace masu::firmware
