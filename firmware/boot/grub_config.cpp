// grub.cfg as a whole: from its text to a menu of entries with one chosen.
#include "firmware/boot/grub_config.hpp"

#include <algorithm>

namespace masu::firmware {

namespace {

constexpr std::size_t max_items = 192;

constexpr GrubVariable given_variables[] = {
    {"grub_platform", "pc"},
    {"grub_cpu", "i386"},
    {"feature_200_final", "y"},
    {"feature_all_video_module", "y"},
    {"feature_chainloader_bpb", "y"},
    {"feature_default_font_path", "y"},
    {"feature_menuentry_id", "y"},
    {"feature_menuentry_options", "y"},
    {"feature_nativedisk_cmd", "y"},
    {"feature_ntldr", "y"},
    {"feature_platform_search_hint", "y"},
    {"feature_timeout_style", "y"},
};

// Takes the first step of a path of menu choices, "1>2": ">" parts steps, ">>" is the character.
std::string_view take_step(std::string_view& rest) {
    for (std::size_t at = 0; at < rest.size(); ++at) {
        if (rest[at] != '>')
            continue;
        if (at + 1 < rest.size() && rest[at + 1] == '>') {
            ++at;
            continue;
        }
        const auto step = part(rest, 0, at);
        rest = part(rest, at + 1);
        return step;
    }
    const auto step = rest;
    rest = {};
    return step;
}

// `step`, in which ">>" stands for ">", against a title.
bool same_title(std::string_view step, std::string_view title) {
    std::size_t at = 0;
    for (const char c : title) {
        if (at >= step.size() || step[at] != c)
            return false;
        at += c == '>' && at + 1 < step.size() && step[at + 1] == '>' ? 2 : 1;
    }
    return at == step.size();
}

}  // namespace

GrubConfig::GrubConfig(std::span<const BootDevice> devices, const BootFile& config,
                       Arena& arena) noexcept
    : devices_(devices),
      config_(config),
      arena_(&arena),
      script_(arena, *this),
      items_(arena.make_array<GrubItem>(max_items)) {
    for (const auto& variable : given_variables)
        script_.set(variable.name, variable.value);
    const auto folder = part(config.path, 0, config.path.rfind('/'));
    const auto root = device_name(config.device);
    TextBuilder prefix(arena);
    prefix.put('(');
    prefix.put(root);
    prefix.put(')');
    prefix.put(folder);
    script_.set("root", root);
    script_.set("prefix", prefix.view());
    script_.set("config_directory", prefix.view());
    script_.set("config_file", config.path);
}

Message GrubConfig::trouble(std::string_view what) const noexcept {
    Message message;
    message.put_visible(config_.path).put(" on ");
    describe(message, devices_[config_.device]);
    message.put(": ").put(what);
    if (note_ != nullptr) {
        message.put(" (").put(note_);
        if (!note_detail_.empty())
            message.put(": ").put_visible(note_detail_);
        message.put(")");
    }
    return message;
}

BootResult GrubConfig::evaluate(std::string_view text) noexcept {
    if (items_.empty())
        return std::unexpected(trouble("no memory left"));
    target_ = &loading_;
    script_.run(text);
    script_.resume();
    // Entries seen before a script went wrong are kept, as GRUB keeps them.
    if (script_.failure() != nullptr && item_count_ == 0)
        return std::unexpected(trouble(script_.failure()));
    open_submenus();
    BootMenu menu{.kind = ConfigKind::Grub, .config = config_};
    menu.timeout = static_cast<std::uint32_t>(
        std::min<std::uint64_t>(parse_number(script_.value("timeout")).value_or(0), 86400));
    if (item_count_ == 0 && !loading_.kernel.path.empty()) {
        // No menu: commands that boot at once.
        menu.entries = arena_->make_array<BootEntry>(1);
        if (menu.entries.empty())
            return std::unexpected(trouble("no memory left"));
        menu.entries[0] = loading_;
        menu.entries[0].title = "the commands of grub.cfg";
        check_files(menu.entries[0], devices_);
        return menu;
    }
    const auto is_entry = [](const GrubItem& item) { return !item.submenu; };
    const auto items = std::span<const GrubItem>(items_).first(item_count_);
    const auto count = static_cast<std::size_t>(std::ranges::count_if(items, is_entry));
    if (count == 0)
        return std::unexpected(trouble("there is no menu entry in it"));
    menu.entries = arena_->make_array<BootEntry>(count);
    if (menu.entries.empty())
        return std::unexpected(trouble("no memory left"));
    const auto at_top = script_.snapshot();
    const std::size_t chosen = choose();
    std::size_t at = 0;
    for (std::size_t i = 0; i < items.size(); ++i) {
        if (items[i].submenu)
            continue;
        if (i == chosen)
            menu.chosen = at;
        script_.restore(items[i].parent < 0
                            ? at_top
                            : items[static_cast<std::size_t>(items[i].parent)].variables);
        resolve(items[i], menu.entries[at++]);
    }
    return menu;
}

// Each submenu's commands, with the variables as they are above it; those within are appended and
// get their turn.
void GrubConfig::open_submenus() noexcept {
    const auto at_top = script_.snapshot();
    for (std::size_t i = 0; i < item_count_; ++i) {
        GrubItem& item = items_[i];
        if (!item.submenu)
            continue;
        script_.restore(item.parent < 0 ? at_top
                                        : items_[static_cast<std::size_t>(item.parent)].variables);
        menu_ = static_cast<int>(i);
        script_.set_parameters(item.parameters);
        script_.run(item.body);
        script_.set_parameters({});
        item.variables = script_.snapshot();
    }
    menu_ = -1;
    script_.restore(at_top);
}

void GrubConfig::resolve(const GrubItem& item, BootEntry& entry) noexcept {
    entry = {};
    note_ = nullptr;
    note_detail_ = {};
    target_ = &entry;
    if (item.bls != nullptr) {
        // In GRUB a variable that was never set is empty.
        const auto find = [&](std::string_view name) { return std::optional(script_.value(name)); };
        if (!make_bls_entry(*item.bls, item.bls_device, find, *arena_, entry))
            note("no memory left", {});
        TextBuilder line(*arena_);
        line.put("BOOT_IMAGE=");
        line.put(entry.kernel.path);
        line.put(' ');
        line.put(entry.command_line);
        entry.command_line = line.view();
    } else if (script_.failure() == nullptr) {
        script_.set("chosen", item.id.empty() ? item.title : item.id);
        script_.set_parameters(item.parameters);
        script_.run(item.body);
        script_.set_parameters({});
    }
    entry.title = item.title;
    entry.id = item.id;
    entry.parent = parent_path(item);
    if (script_.failure() != nullptr) {
        entry.problem = script_.failure();
        entry.problem_detail = item.title;
    } else if (entry.kernel.path.empty() && entry.problem == nullptr) {
        entry.problem = note_ != nullptr ? note_ : "the entry starts no Linux kernel";
        entry.problem_detail = note_detail_;
    }
    check_files(entry, devices_);
    target_ = &loading_;
}

// "title>title" of the menus around an item.
std::string_view GrubConfig::parent_path(const GrubItem& item) noexcept {
    std::array<int, 8> chain{};
    std::size_t depth = 0;
    for (int i = item.parent; i >= 0 && depth < chain.size();
         i = items_[static_cast<std::size_t>(i)].parent)
        chain[depth++] = i;
    TextBuilder path(*arena_);
    while (depth > 0) {
        path.put(items_[static_cast<std::size_t>(chain[--depth])].title);
        if (depth > 0)
            path.put('>');
    }
    return path.view();
}

std::optional<std::size_t> GrubConfig::choose_in(int menu, std::string_view wanted) const noexcept {
    const auto index = parse_number(wanted);
    for (std::size_t i = 0; i < item_count_; ++i) {
        const auto& item = items_[i];
        if (item.parent != menu)
            continue;
        if (index ? item.position == *index
                  : (!item.id.empty() && same_title(wanted, item.id)) ||
                        same_title(wanted, item.title))
            return i;
    }
    return std::nullopt;
}

// The item that $default leads to. What names nothing is the first entry, as in GRUB; a menu's
// default is its first entry.
std::size_t GrubConfig::choose() const noexcept {
    std::string_view rest = script_.value("default");
    int menu = -1;
    for (std::size_t depth = 0; depth < max_items; ++depth) {
        const auto step = take_step(rest);
        auto found = choose_in(menu, step);
        if (!found)
            found = choose_in(menu, "0");
        if (!found)
            break;
        if (!items_[*found].submenu)
            return *found;
        menu = static_cast<int>(*found);
    }
    // An empty submenu.
    for (std::size_t i = 0; i < item_count_; ++i)
        if (!items_[i].submenu)
            return i;
    return 0;
}

BootResult read_grub_config(std::span<const BootDevice> devices, const BootFile& config,
                            Arena& arena) noexcept {
    const auto text = read_text(*devices[config.device].fs, config.path, arena);
    if (!text) {
        Message message;
        message.put_visible(config.path).put(" on ");
        describe(message, devices[config.device]);
        return std::unexpected(message.put(": ").put(text.error().reason));
    }
    auto* const memory = arena.allocate(sizeof(GrubConfig), alignof(GrubConfig));
    if (memory == nullptr)
        return std::unexpected(Message{}.put("no memory left for grub.cfg"));
    return (::new (memory) GrubConfig(devices, config, arena))->evaluate(*text);
}

}  // namespace masu::firmware
