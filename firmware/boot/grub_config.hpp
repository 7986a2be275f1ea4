// What a grub.cfg's commands mean to us: devices, files, menu entries, kernels.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "firmware/boot/bls.hpp"
#include "firmware/boot/boot_entry.hpp"
#include "firmware/boot/grub_script.hpp"
#include "firmware/boot/grub_test.hpp"

namespace masu::firmware {

// One line of GRUB's menu, or a menu below it.
struct GrubItem {
    std::string_view title;
    std::string_view id;
    int parent = -1;             // index of the submenu it is in
    std::uint32_t position = 0;  // within that menu, from 0
    bool submenu = false;
    std::string_view body;          // script
    const BlsEntry* bls = nullptr;  // instead of a body
    std::size_t bls_device = 0;
    std::span<const std::string_view> parameters;
    std::span<const GrubVariable> variables;  // a submenu's, for what is in it
};

class GrubConfig final : public GrubCommands, public GrubFiles {
  public:
    GrubConfig(std::span<const BootDevice> devices, const BootFile& config, Arena& arena) noexcept;

    [[nodiscard]] BootResult evaluate(std::string_view text) noexcept;

    bool run(std::span<const std::string_view> words,
             std::optional<std::string_view> block) noexcept override;
    Kind kind_of(std::string_view path) noexcept override;

  private:
    using Words = std::span<const std::string_view>;

    [[nodiscard]] std::uint32_t grub_disk(const BootDevice& device) const noexcept;
    [[nodiscard]] std::string_view device_name(std::size_t device) noexcept;
    [[nodiscard]] std::optional<std::size_t> find_device(std::string_view name) const noexcept;
    [[nodiscard]] std::optional<BootFile> locate(std::string_view path) noexcept;
    [[nodiscard]] Message trouble(std::string_view what) const noexcept;
    void note(const char* what, std::string_view detail) noexcept;

    bool ignored_command(std::string_view name, bool& result) noexcept;
    bool set_command(Words words) noexcept;
    bool search_command(Words words) noexcept;
    bool search(std::string_view kind, std::string_view target, std::string_view variable) noexcept;
    bool load_env(Words words) noexcept;
    bool add_item(Words words, std::string_view block, bool submenu) noexcept;
    bool include(std::string_view path) noexcept;
    bool replace_menu(std::string_view path) noexcept;
    bool load_kernel(Words words) noexcept;
    bool load_initrds(Words words) noexcept;
    bool list_bls() noexcept;
    bool count_command(Words words, bool up) noexcept;

    void open_submenus() noexcept;
    void resolve(const GrubItem& item, BootEntry& entry) noexcept;
    [[nodiscard]] std::string_view parent_path(const GrubItem& item) noexcept;
    [[nodiscard]] std::optional<std::size_t> choose_in(int menu,
                                                       std::string_view wanted) const noexcept;
    [[nodiscard]] std::size_t choose() const noexcept;

    std::span<const BootDevice> devices_;
    BootFile config_;
    Arena* arena_;
    GrubScript script_;
    std::span<GrubItem> items_;
    std::size_t item_count_ = 0;
    int menu_ = -1;
    int includes_ = 0;
    BootEntry loading_;  // what linux and initrd have said so far
    BootEntry* target_ = nullptr;
    const char* note_ = nullptr;  // what could not be followed, for when nothing comes of it
    std::string_view note_detail_;
};

}  // namespace masu::firmware
