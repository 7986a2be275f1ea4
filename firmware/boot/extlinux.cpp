// extlinux.conf and its relatives (wiki.syslinux.org/wiki/index.php?title=Config).
#include <algorithm>
#include <array>

#include "firmware/boot/boot_entry.hpp"

namespace masu::firmware {

namespace {

constexpr int max_includes = 8;

struct Parser {
    std::span<const BootDevice> devices;
    BootFile config;
    std::string_view folder;  // of the configuration, ends with "/": relative paths start there
    Arena& arena;
    std::span<BootEntry> entries;
    std::size_t count = 0;
    std::string_view default_label;
    std::optional<std::size_t> menu_default;
    std::string_view global_append;
    std::uint32_t timeout = 0;
    int includes = 0;
    bool out_of_memory = false;
    const char* note = nullptr;  // what was passed over

    [[nodiscard]] BootEntry* current() { return count == 0 ? nullptr : &entries[count - 1]; }

    BootFile file(std::string_view path) {
        if (path.starts_with('/'))
            return {config.device, path};
        TextBuilder whole(arena);
        whole.put(folder);
        whole.put(path);
        out_of_memory |= !whole.ok();
        return {config.device, whole.view()};
    }

    static void problem(BootEntry& entry, const char* what, std::string_view detail) {
        if (entry.problem != nullptr)
            return;
        entry.problem = what;
        entry.problem_detail = detail;
    }

    // Commas part several of them.
    void add_initrds(BootEntry& entry, std::string_view list) {
        while (!list.empty()) {
            const auto path = trim(take_until(list, ','));
            if (path.empty())
                continue;
            if (entry.initrd_count == max_initrds)
                return problem(entry, "the entry has more initrds than are read here", path);
            entry.initrds[entry.initrd_count++] = file(path);
        }
    }

    // What syslinux takes from the command line itself: "initrd=".
    void take_initrd_option(BootEntry& entry) {
        auto rest = entry.command_line;
        for (auto word = take_word(rest); !word.empty(); word = take_word(rest))
            if (word.starts_with("initrd=") && entry.initrd_count == 0)
                add_initrds(entry, part(word, 7));
    }

    void set_kernel(BootEntry& entry, std::string_view value, bool must_be_linux) {
        // KERNEL also starts modules and boot sectors, told apart by the name's end.
        for (const auto* const suffix :
             {".c32", ".com", ".cbt", ".bs", ".bin", ".bss", ".0", ".img"})
            if (!must_be_linux && value.ends_with(suffix))
                return problem(entry, "the entry does not start a Linux kernel", value);
        entry.kernel = file(value);
    }

    void menu_line(std::string_view line) {
        const auto key = take_word(line);
        const auto value = trim(line);
        BootEntry* const entry = current();
        if (same_without_case(key, "include")) {
            include(value);
        } else if (entry != nullptr && same_without_case(key, "label")) {
            entry->title = value;
        } else if (entry != nullptr && same_without_case(key, "default")) {
            menu_default = count - 1;
        }
    }

    void include(std::string_view value) {
        auto rest = value;
        const auto path = take_word(rest);
        if (++includes > max_includes) {
            note = "more than 8 files are included";
            return;
        }
        const auto text = read_text(*devices[config.device].fs, file(path).path, arena);
        if (text)
            parse(*text);
        else
            note = "an included file cannot be read";
    }

    void label(std::string_view value) {
        if (count == entries.size()) {
            note = "more entries than are read here";
            return;
        }
        entries[count++] = {.title = value, .id = value};
        entries[count - 1].command_line = global_append;
    }

    void line(std::string_view line) {
        const auto key = take_word(line);
        const auto value = trim(line);
        const auto is = [&](const char* name) { return same_without_case(key, name); };
        BootEntry* const entry = current();
        if (is("label"))
            return label(value);
        if (is("default"))
            return static_cast<void>(default_label = value);
        if (is("menu"))
            return menu_line(value);
        if (is("include"))
            return include(value);
        if (is("timeout"))
            return static_cast<void>(
                timeout = static_cast<std::uint32_t>(parse_number(value).value_or(0) / 10));
        if (is("append") && entry == nullptr)
            return static_cast<void>(global_append = value);
        if (entry == nullptr)
            return;
        if (is("linux") || is("kernel"))
            set_kernel(*entry, value, is("linux"));
        else if (is("initrd"))
            add_initrds(*entry, value);
        else if (is("append"))
            entry->command_line = value == "-" ? std::string_view{} : value;
        else if (is("com32") || is("boot") || is("bss") || is("pxe") || is("fdimage") ||
                 is("comboot") || is("localboot") || is("config"))
            problem(*entry, "the entry does not start a Linux kernel", key);
    }

    void parse(std::string_view text) {
        while (!text.empty()) {
            const auto one = trim(take_until(text, '\n'));
            if (!one.empty() && !one.starts_with('#'))
                line(one);
        }
    }

    // DEFAULT names a label, or a menu module whose own default counts.
    std::size_t choose() const {
        auto rest = default_label;
        const auto wanted = take_word(rest);
        for (std::size_t i = 0; i < count; ++i)
            if (!menu_default && entries[i].id == wanted)
                return i;
        return menu_default.value_or(0);
    }
};

}  // namespace

BootResult read_extlinux_config(std::span<const BootDevice> devices, const BootFile& config,
                                Arena& arena) noexcept {
    const auto trouble = [&](std::string_view what) {
        Message message;
        message.put_visible(config.path).put(" on ");
        describe(message, devices[config.device]);
        return std::unexpected(message.put(": ").put(what));
    };
    const auto text = read_text(*devices[config.device].fs, config.path, arena);
    if (!text)
        return trouble(text.error().reason);
    Parser parser{.devices = devices,
                  .config = config,
                  .folder = part(config.path, 0, config.path.rfind('/') + 1),
                  .arena = arena,
                  .entries = arena.make_array<BootEntry>(max_entries)};
    if (parser.entries.empty())
        return trouble("no memory left");
    parser.parse(*text);
    if (parser.out_of_memory)
        return trouble("no memory left");
    if (parser.count == 0)
        return trouble(parser.note != nullptr ? parser.note : "there is no LABEL in it");
    BootMenu menu{.kind = ConfigKind::Extlinux,
                  .config = config,
                  .entries = parser.entries.first(parser.count),
                  .timeout = parser.timeout};
    for (auto& entry : menu.entries) {
        parser.take_initrd_option(entry);
        if (entry.kernel.path.empty())
            parser.problem(entry, "the entry names no kernel", entry.id);
        check_files(entry, devices);
    }
    menu.chosen = parser.choose();
    return menu;
}

}  // namespace masu::firmware
