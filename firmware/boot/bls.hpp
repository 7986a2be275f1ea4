// The pieces of Boot Loader Specification entries that GRUB's "blscfg" needs as well.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <string_view>

#include "firmware/boot/boot_entry.hpp"
#include "firmware/boot/text.hpp"

namespace masu::firmware {

// One file of loader/entries. Views into its text.
struct BlsEntry {
    std::string_view id;  // the file's name without ".conf" and boot counters
    std::string_view title, version, machine_id, sort_key, architecture, linux, efi;
    std::array<std::string_view, max_initrds> initrds;
    std::size_t initrd_count = 0;
    std::array<std::string_view, 16> options;
    std::size_t option_count = 0;
    bool exhausted = false;  // boot counting: no tries left
    bool overflow = false;   // more initrds or options than fit
};

struct BlsVariable {
    std::string_view name;
    std::string_view value;
};

// A reference to a function from a variable's name to its value; what it refers to must outlive it.
class BlsLookup {
  public:
    template <class Find>
    BlsLookup(const Find& find) noexcept
        : object_(&find), call_([](const void* object, std::string_view name) {
              return (*static_cast<const Find*>(object))(name);
          }) {}
    [[nodiscard]] std::optional<std::string_view> operator()(std::string_view name) const {
        return call_(object_, name);
    }

  private:
    const void* object_;
    std::optional<std::string_view> (*call_)(const void*, std::string_view);
};

// `name` is the file's, ending with ".conf".
void parse_bls_entry(std::string_view text, std::string_view name, BlsEntry& entry) noexcept;

// The specification's order: what to boot first comes first.
void sort_bls_entries(std::span<BlsEntry*> entries) noexcept;

// The entries of a folder, sorted; at most max_entries.
[[nodiscard]] Result<std::span<BlsEntry*>> list_bls_entries(FileSystem& fs, std::string_view folder,
                                                            Arena& arena) noexcept;

// Puts `text` with $name and ${name} replaced. False when a variable has no value (it is left out).
bool expand_bls(std::string_view text, const BlsLookup& lookup, TextBuilder& to) noexcept;

// An entry ready to boot, or with the reason why not. False when the arena is used up.
[[nodiscard]] bool make_bls_entry(const BlsEntry& from, std::size_t device, const BlsLookup& lookup,
                                  Arena& arena, BootEntry& to) noexcept;

}  // namespace masu::firmware
