// Boot Loader Specification entries, type 1: one file an entry (uapi-group.org/specifications).
#include <algorithm>
#include <array>

#include "firmware/boot/bls.hpp"
#include "firmware/boot/boot_entry.hpp"
#include "firmware/boot/grubenv.hpp"
#include "firmware/boot/version.hpp"

namespace masu::firmware {

namespace {

constexpr std::size_t max_variables = 32;

// "…+LEFT-DONE.conf" or "…+LEFT.conf": boot counting. The id is what is in front of it.
void split_tries(std::string_view name, BlsEntry& entry) {
    entry.id = part(name, 0, name.size() - 5);
    const std::size_t plus = entry.id.rfind('+');
    if (plus == std::string_view::npos)
        return;
    std::string_view rest = part(entry.id, plus + 1);
    const auto left = parse_number(take_until(rest, '-'));
    if (!left || (!rest.empty() && !parse_number(rest)))
        return;
    entry.exhausted = *left == 0;
    entry.id = part(entry.id, 0, plus);
}

void parse_line(std::string_view line, BlsEntry& entry) {
    const auto key = take_word(line);
    const auto value = trim(line);
    if (key.starts_with('#') || value.empty())
        return;
    const auto add = [&](auto& list, std::size_t& count) {
        if (count < list.size())
            list[count++] = value;
        else
            entry.overflow = true;
    };
    if (key == "title")
        entry.title = value;
    else if (key == "version")
        entry.version = value;
    else if (key == "machine-id")
        entry.machine_id = value;
    else if (key == "sort-key")
        entry.sort_key = value;
    else if (key == "architecture")
        entry.architecture = value;
    else if (key == "linux")
        entry.linux = value;
    else if (key == "efi" || key == "uki")
        entry.efi = value;
    else if (key == "initrd")
        add(entry.initrds, entry.initrd_count);
    else if (key == "options")
        add(entry.options, entry.option_count);
}

// The specification's order, the one to boot first.
bool comes_before(const BlsEntry& a, const BlsEntry& b) {
    if (a.exhausted != b.exhausted)
        return b.exhausted;
    if (a.sort_key.empty() != b.sort_key.empty())
        return b.sort_key.empty();
    if (!a.sort_key.empty()) {
        if (a.sort_key != b.sort_key)
            return a.sort_key < b.sort_key;
        if (a.machine_id != b.machine_id)
            return a.machine_id < b.machine_id;
        if (const int order = compare_versions(a.version, b.version); order != 0)
            return order > 0;
    }
    return compare_versions(a.id, b.id) > 0;
}

// "*", "?" and "[a-z]" as in a shell; the steps are bounded by the product of the lengths.
bool matches(std::string_view pattern, std::string_view text) {
    std::size_t p = 0, t = 0, star = std::string_view::npos, resume = 0;
    while (t < text.size()) {
        std::size_t after = p + 1;
        bool fits = p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t]);
        if (p < pattern.size() && pattern[p] == '[') {
            const std::size_t end = pattern.find(']', p + 2);
            if (end != std::string_view::npos) {
                fits = false;
                for (std::size_t i = p + 1; i < end; ++i) {
                    const bool range = i + 2 < end && pattern[i + 1] == '-';
                    fits = fits || (range ? pattern[i] <= text[t] && text[t] <= pattern[i + 2]
                                          : pattern[i] == text[t]);
                    i += range ? 2 : 0;
                }
                after = end + 1;
            }
        }
        if (p < pattern.size() && pattern[p] == '*') {
            star = p++;
            resume = t;
        } else if (fits) {
            p = after;
            ++t;
        } else if (star != std::string_view::npos) {
            p = star + 1;
            t = ++resume;
        } else {
            return false;
        }
    }
    while (p < pattern.size() && pattern[p] == '*')
        ++p;
    return p == pattern.size();
}

// grubenv's variables, for Fedora's entries ("options $kernelopts").
struct Environment {
    std::array<BlsVariable, max_variables> list;
    std::size_t count = 0;
    [[nodiscard]] std::optional<std::string_view> find(std::string_view name) const {
        for (std::size_t i = 0; i < count; ++i)
            if (list[i].name == name)
                return list[i].value;
        return std::nullopt;
    }
};

Environment load_environment(FileSystem& fs, Arena& arena) {
    Environment environment;
    for (const auto* const path :
         {"/grub2/grubenv", "/boot/grub2/grubenv", "/grub/grubenv", "/boot/grub/grubenv"}) {
        const auto text = read_text(fs, path, arena);
        if (text && walk_grubenv(*text, [&](std::string_view name, std::string_view value) {
                if (environment.count < max_variables)
                    environment.list[environment.count++] = {name, value};
            }))
            break;
    }
    return environment;
}

// The default of loader.conf, a pattern over entry ids.
std::string_view loader_default(FileSystem& fs, std::string_view entries, Arena& arena) {
    constexpr std::string_view last = "/entries";
    TextBuilder path(arena);
    path.put(part(entries, 0, entries.size() - std::min(entries.size(), last.size())));
    path.put("/loader.conf");
    if (!path.ok())
        return {};
    const auto text = read_text(fs, path.view(), arena);
    std::string_view rest = text ? *text : std::string_view{};
    std::string_view pattern;
    while (!rest.empty()) {
        auto line = take_until(rest, '\n');
        if (take_word(line) == "default")
            pattern = trim(line);
    }
    return pattern;
}

// `pattern` with or without ".conf".
bool is_chosen(std::string_view id, std::string_view pattern) {
    if (pattern.empty())
        return false;
    if (pattern.ends_with(".conf"))
        pattern = part(pattern, 0, pattern.size() - 5);
    return matches(pattern, id);
}

}  // namespace

void parse_bls_entry(std::string_view text, std::string_view name, BlsEntry& entry) noexcept {
    entry = {};
    split_tries(name, entry);
    while (!text.empty())
        parse_line(take_until(text, '\n'), entry);
}

void sort_bls_entries(std::span<BlsEntry*> entries) noexcept {
    // A handful of them: insertion keeps equal ones in the directory's order.
    for (std::size_t i = 1; i < entries.size(); ++i) {
        BlsEntry* const moving = entries[i];
        std::size_t at = i;
        for (; at > 0 && comes_before(*moving, *entries[at - 1]); --at)
            entries[at] = entries[at - 1];
        entries[at] = moving;
    }
}

Result<std::span<BlsEntry*>> list_bls_entries(FileSystem& fs, std::string_view folder,
                                              Arena& arena) noexcept {
    const Node directory = TRY(fs.open(folder));
    const auto list = arena.make_array<BlsEntry*>(max_entries);
    auto* const entry = arena.make<DirectoryEntry>();
    if (list.empty() || entry == nullptr)
        return fail(ErrorCode::NoMemory, "no memory left for the boot entries");
    std::size_t count = 0;
    for (std::uint64_t cursor = 0;
         count < list.size() && TRY(fs.next(directory, cursor, *entry));) {
        if (!entry->name().ends_with(".conf") || entry->name().starts_with('.'))
            continue;
        const auto name = copy_text(arena, entry->name());
        TextBuilder path(arena);
        path.put(folder);
        path.put('/');
        path.put(entry->name());
        if (!name || !path.ok())
            return fail(ErrorCode::NoMemory, "no memory left for the boot entries");
        const auto text = read_text(fs, path.view(), arena);
        if (!text && text.error().code == ErrorCode::IsDirectory)
            continue;
        auto* const made = arena.make<BlsEntry>();
        if (made == nullptr)
            return fail(ErrorCode::NoMemory, "no memory left for the boot entries");
        parse_bls_entry(TRY(text), *name, *made);
        list[count++] = made;
    }
    sort_bls_entries(list.first(count));
    return list.first(count);
}

bool expand_bls(std::string_view text, const BlsLookup& lookup, TextBuilder& to) noexcept {
    bool complete = true;
    while (!text.empty()) {
        const std::size_t dollar = text.find('$');
        to.put(part(text, 0, dollar));
        if (dollar == std::string_view::npos)
            break;
        text = part(text, dollar + 1);
        const bool braces = text.starts_with('{');
        std::size_t size = braces ? text.find('}') : 0;
        if (!braces)
            while (size < text.size() && is_name(text[size]))
                ++size;
        if (size == std::string_view::npos || size == 0) {
            to.put('$');
            continue;
        }
        const auto name = braces ? part(text, 1, size - 1) : part(text, 0, size);
        text = part(text, braces ? size + 1 : size);
        if (const auto value = lookup(name))
            to.put(*value);
        else
            complete = false;
    }
    return complete;
}

bool make_bls_entry(const BlsEntry& from, std::size_t device, const BlsLookup& lookup, Arena& arena,
                    BootEntry& to) noexcept {
    to = {};
    to.title = from.title.empty() ? from.id : from.title;
    to.id = from.id;
    const auto problem = [&](const char* what, std::string_view detail) {
        if (to.problem == nullptr) {
            to.problem = what;
            to.problem_detail = detail;
        }
    };
    if (!from.architecture.empty() && !same_without_case(from.architecture, "x64") &&
        !same_without_case(from.architecture, "x86_64"))
        problem("the entry is for another architecture", from.architecture);
    if (from.linux.empty())
        problem(from.efi.empty() ? "the entry names no kernel"
                                 : "the entry starts an EFI program, which needs an EFI partition",
                from.efi);
    if (from.overflow)
        problem("the entry has more initrds or options than are read here", from.id);
    to.kernel = {device, from.linux};
    for (std::size_t i = 0; i < from.initrd_count; ++i) {
        TextBuilder list(arena);
        expand_bls(from.initrds[i], lookup, list);
        if (!list.ok())
            return false;
        auto rest = list.view();
        for (auto one = take_word(rest); !one.empty(); one = take_word(rest)) {
            if (to.initrd_count < max_initrds)
                to.initrds[to.initrd_count++] = {device, one};
            else
                problem("the entry has more initrds than are read here", from.id);
        }
    }
    TextBuilder line(arena);
    for (std::size_t i = 0; i < from.option_count; ++i) {
        if (i != 0)
            line.put(' ');
        if (!expand_bls(from.options[i], lookup, line))
            problem("the options use a variable that has no value", from.options[i]);
    }
    to.command_line = line.view();
    return line.ok();
}

BootResult read_bls_entries(std::span<const BootDevice> devices, const BootFile& config,
                            Arena& arena) noexcept {
    FileSystem& fs = *devices[config.device].fs;
    const auto trouble = [&](std::string_view what) {
        Message message;
        message.put_visible(config.path).put(" on ");
        describe(message, devices[config.device]);
        return std::unexpected(message.put(": ").put(what));
    };
    const auto listed = list_bls_entries(fs, config.path, arena);
    if (!listed)
        return trouble(listed.error().reason);
    if (listed->empty())
        return trouble("there is no entry in it");
    const auto environment = load_environment(fs, arena);
    const auto find = [&](std::string_view name) {
        const auto value = environment.find(name);
        // $tuned_params and $tuned_initrd stand in entries also where tuned never set them.
        return !value && name.starts_with("tuned_") ? std::optional(std::string_view{}) : value;
    };
    BootMenu menu{.kind = ConfigKind::Bls, .config = config};
    menu.entries = arena.make_array<BootEntry>(listed->size());
    if (menu.entries.empty())
        return trouble("no memory left");
    for (std::size_t i = 0; i < listed->size(); ++i) {
        auto& entry = menu.entries[i];
        if (!make_bls_entry(*(*listed)[i], config.device, find, arena, entry))
            return trouble("no memory left");
        check_files(entry, devices);
    }
    // What a one-time choice or a saved one says, then loader.conf, then the first that works.
    const auto pattern = loader_default(fs, config.path, arena);
    const auto next = environment.find("next_entry").value_or(std::string_view{});
    const auto saved = environment.find("saved_entry").value_or(std::string_view{});
    for (const auto& wanted : {next, saved, pattern}) {
        for (std::size_t i = 0; i < menu.entries.size(); ++i) {
            if (!is_chosen(menu.entries[i].id, wanted))
                continue;
            menu.chosen = i;
            return menu;
        }
        if (const auto index = parse_number(wanted); index && *index < menu.entries.size()) {
            menu.chosen = *index;
            return menu;
        }
    }
    while (menu.chosen + 1 < menu.entries.size() && menu.entries[menu.chosen].problem != nullptr)
        ++menu.chosen;
    if (menu.entries[menu.chosen].problem != nullptr)
        menu.chosen = 0;
    return menu;
}

}  // namespace masu::firmware
