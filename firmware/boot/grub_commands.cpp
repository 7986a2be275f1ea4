// The commands of grub.cfg.
#include <algorithm>

#include "firmware/boot/grub_config.hpp"
#include "firmware/boot/grubenv.hpp"

namespace masu::firmware {

namespace {

constexpr int max_includes = 16;
constexpr std::uint32_t file_steps = 40;  // what looking for a file counts, in commands

// Without effect here, and true.
constexpr std::array<std::string_view, 36> without_effect{"insmod",
                                                          "rmmod",
                                                          "echo",
                                                          "export",
                                                          "save_env",
                                                          "list_env",
                                                          "terminal_input",
                                                          "terminal_output",
                                                          "terminfo",
                                                          "serial",
                                                          "gfxmode",
                                                          "background_color",
                                                          "clear",
                                                          "sleep",
                                                          "play",
                                                          "true",
                                                          ":",
                                                          "nativedisk",
                                                          "boot",
                                                          "drivemap",
                                                          "outb",
                                                          "videoinfo",
                                                          "videomode",
                                                          "set_background_image",
                                                          "authenticate",
                                                          "password",
                                                          "password_pbkdf2",
                                                          "setparams",
                                                          "shift",
                                                          "tpm",
                                                          "efitextmode",
                                                          "cpuid",
                                                          "lockdown",
                                                          "trust",
                                                          "verify_detached",
                                                          "unrestricted"};
constexpr std::array<std::string_view, 6> always_false{"false",     "loadfont",         "hwmatch",
                                                       "keystatus", "background_image", "lsefi"};
constexpr std::array<std::string_view, 15> other_loaders{
    "chainloader",  "multiboot", "multiboot2", "xen_hypervisor", "xen_linux",
    "ntldr",        "freedos",   "kfreebsd",   "knetbsd",        "kopenbsd",
    "xnu_kernel64", "fwsetup",   "halt",       "reboot",         "exit"};

bool holds(std::span<const std::string_view> list, std::string_view name) {
    return std::ranges::find(list, name) != list.end();
}

// "--name=value" or "--name": the value, or an empty text.
std::optional<std::string_view> option(std::string_view word, std::string_view name) {
    if (!word.starts_with(name))
        return std::nullopt;
    const auto rest = part(word, name.size());
    if (rest.empty())
        return rest;
    if (rest.front() != '=')
        return std::nullopt;
    return part(rest, 1);
}

}  // namespace

void GrubConfig::note(const char* what, std::string_view detail) noexcept {
    if (note_ != nullptr)
        return;
    note_ = what;
    note_detail_ = script_.keep(detail);
}

// The disk that grub.cfg is on is hd0, as a BIOS that booted from it would say; the others follow.
std::uint32_t GrubConfig::grub_disk(const BootDevice& device) const noexcept {
    const std::uint32_t own = devices_[config_.device].disk;
    return device.disk == own ? 0 : device.disk < own ? device.disk + 1 : device.disk;
}

// "hd0,gpt2", "hd0,msdos1", "hd1".
std::string_view GrubConfig::device_name(std::size_t device) noexcept {
    const auto& one = devices_[device];
    Text<64> name;
    name.put("hd").put(grub_disk(one));
    if (one.partition != 0)
        name.put(one.gpt ? ",gpt" : ",msdos").put(one.partition);
    return script_.keep(name.view());
}

std::optional<std::size_t> GrubConfig::find_device(std::string_view name) const noexcept {
    if (!name.starts_with("hd"))
        return std::nullopt;
    auto rest = part(name, 2);
    const auto disk = parse_number(take_until(rest, ','));
    // "gpt2", "msdos1", "msdos1,bsd1" (not followed) or "2".
    while (!rest.empty() && !is_digit(rest.front()))
        rest.remove_prefix(1);
    const auto number = rest.empty() ? std::optional<std::uint64_t>(0) : parse_number(rest);
    for (std::size_t i = 0; i < devices_.size(); ++i)
        if (disk && number && grub_disk(devices_[i]) == *disk && devices_[i].partition == *number)
            return i;
    return std::nullopt;
}

// "(hd0,gpt1)/path", or "/path" on $root.
std::optional<BootFile> GrubConfig::locate(std::string_view path) noexcept {
    std::string_view device = script_.value("root");
    if (path.starts_with('(')) {
        const std::size_t end = path.find(')');
        device = part(path, 1, end == std::string_view::npos ? end : end - 1);
        path = end == std::string_view::npos ? std::string_view{} : part(path, end + 1);
    }
    if (device.starts_with('(') && device.ends_with(')'))
        device = part(device, 1, device.size() - 2);
    const auto found = find_device(device);
    if (!found) {
        note("there is no such device here", device);
        return std::nullopt;
    }
    if (!path.starts_with('/')) {
        note("a path does not begin with \"/\"", path);
        return std::nullopt;
    }
    return BootFile{*found, script_.keep(path)};
}

GrubFiles::Kind GrubConfig::kind_of(std::string_view path) noexcept {
    // A test may ask for what is not there: nothing to note.
    const auto* const before = note_;
    script_.charge(file_steps);
    const auto file = locate(path);
    note_ = before;
    if (!file)
        return Kind::None;
    FileSystem& fs = *devices_[file->device].fs;
    const auto node = fs.open(file->path);
    if (!node)
        return Kind::None;
    const auto info = fs.stat(*node);
    if (!info)
        return Kind::None;
    if (info->type == FileType::Directory)
        return Kind::Directory;
    return info->size == 0 ? Kind::EmptyFile : Kind::File;
}

bool GrubConfig::ignored_command(std::string_view name, bool& result) noexcept {
    result = holds(without_effect, name);
    return result || holds(always_false, name);
}

bool GrubConfig::run(std::span<const std::string_view> words,
                     std::optional<std::string_view> block) noexcept {
    const auto name = words[0];
    bool result = false;
    if (name == "[" || name == "test") {
        auto condition = words.subspan(1);
        if (name == "[" && !condition.empty() && condition.back() == "]")
            condition = condition.first(condition.size() - 1);
        return evaluate_test(condition, *this);
    }
    if (name == "set" || name == "export")
        return set_command(words);
    if (name == "unset") {
        for (const auto word : words.subspan(1))
            script_.unset(word);
        return true;
    }
    if ((name == "menuentry" || name == "submenu") && block)
        return add_item(words, *block, name == "submenu");
    if (name == "linux" || name == "linux16" || name == "linuxefi" || name == "linux32")
        return load_kernel(words);
    if (name == "initrd" || name == "initrd16" || name == "initrdefi")
        return load_initrds(words);
    if (name == "search" || name.starts_with("search."))
        return search_command(words);
    if (name == "load_env")
        return load_env(words);
    if (name == "blscfg")
        return list_bls();
    if (name == "increment" || name == "decrement")
        return count_command(words, name == "increment");
    if (words.size() > 1 && (name == "source" || name == "."))
        return include(words[1]);
    if (words.size() > 1 && (name == "configfile" || name == "normal"))
        return replace_menu(words[1]);
    if (ignored_command(name, result))
        return result;
    if (holds(other_loaders, name))
        note("the entry uses a command that is not followed here", name);
    else
        note("a command is not known here", name);
    return false;
}

bool GrubConfig::set_command(Words words) noexcept {
    if (words.size() < 2)
        return true;
    const auto word = words[1];
    const std::size_t equals = word.find('=');
    if (equals == std::string_view::npos || equals == 0)
        return true;
    script_.set(part(word, 0, equals), part(word, equals + 1));
    return true;
}

bool GrubConfig::count_command(Words words, bool up) noexcept {
    if (words.size() != 2)
        return false;
    const auto value = parse_number(script_.value(words[1])).value_or(0);
    Text<24> text;
    text.put(up ? value + 1 : value == 0 ? 0 : value - 1);
    script_.set(words[1], text.view());
    return true;
}

bool GrubConfig::search_command(Words words) noexcept {
    std::string_view kind = words[0] == "search.fs_uuid"    ? "--fs-uuid"
                            : words[0] == "search.fs_label" ? "--label"
                                                            : "--file";
    if (words[0] != "search") {
        // search.fs_uuid UUID [VARIABLE [HINT…]]
        if (words.size() < 2)
            return false;
        return search(kind, words[1], words.size() > 2 ? words[2] : "root");
    }
    std::string_view variable;
    std::array<std::string_view, 2> plain{};
    std::size_t plain_count = 0;
    bool bare_set = false;
    for (const auto word : words.subspan(1)) {
        if (word == "--fs-uuid" || word == "-u")
            kind = "--fs-uuid";
        else if (word == "--label" || word == "-l" || word == "--fs-label")
            kind = "--label";
        else if (word == "--file" || word == "-f")
            kind = "--file";
        else if (word == "-s" || word == "--set")
            bare_set = true;
        else if (const auto set = option(word, "--set"))
            variable = *set;
        else if (!word.starts_with('-') && plain_count < plain.size())
            plain[plain_count++] = word;
    }
    if (plain_count == 0)
        return false;
    if (bare_set && plain_count == 2)
        variable = plain[0];
    return search(kind, plain[plain_count - 1], variable.empty() ? "root" : variable);
}

// The configuration's own device first: copies of a disk carry the same names.
bool GrubConfig::search(std::string_view kind, std::string_view target,
                        std::string_view variable) noexcept {
    script_.charge(file_steps);
    const auto fits = [&](const BootDevice& device) {
        if (kind == "--fs-uuid")
            return same_without_case(device.fs->uuid(), target);
        if (kind == "--label")
            return device.fs->label() == target;
        return device.fs->open(target).has_value();
    };
    for (std::size_t i = 0; i <= devices_.size(); ++i) {
        const std::size_t device = i == 0 ? config_.device : i - 1;
        if (!fits(devices_[device]))
            continue;
        script_.set(variable, device_name(device));
        return true;
    }
    note(kind == "--fs-uuid" ? "no file system has the UUID"
         : kind == "--label" ? "no file system has the label"
                             : "no file system has the file",
         target);
    return false;
}

bool GrubConfig::load_env(Words words) noexcept {
    std::string_view path;
    std::array<std::string_view, 16> names{};
    std::size_t name_count = 0;
    for (std::size_t i = 1; i < words.size(); ++i) {
        if (const auto file = option(words[i], "--file"); file && !file->empty())
            path = *file;
        else if ((words[i] == "--file" || words[i] == "-f") && i + 1 < words.size())
            path = words[++i];
        else if (!words[i].starts_with('-') && name_count < names.size())
            names[name_count++] = words[i];
    }
    script_.charge(file_steps);
    TextBuilder standard(*arena_);
    if (path.empty()) {
        standard.put(script_.value("prefix"));
        standard.put("/grubenv");
        path = standard.view();
    }
    const auto file = locate(path);
    const auto text = file ? read_text(*devices_[file->device].fs, file->path, *arena_)
                           : Result<std::string_view>(fail(ErrorCode::NotFound, ""));
    if (!text)
        return false;
    return walk_grubenv(*text, [&](std::string_view name, std::string_view value) {
        if (name_count == 0 || holds(std::span(names).first(name_count), name))
            script_.set(name, value);
    });
}

// menuentry TITLE [--class C]… [--id I] [--hotkey K] [--users U] [--unrestricted] [ARGUMENT…]
bool GrubConfig::add_item(Words words, std::string_view block, bool submenu) noexcept {
    if (item_count_ == items_.size()) {
        note("more menu entries than are read here", {});
        return false;
    }
    GrubItem item{.parent = menu_, .submenu = submenu, .body = block};
    std::array<std::string_view, 16> arguments{};
    std::size_t count = 0;
    for (std::size_t i = 1; i < words.size(); ++i) {
        const auto word = words[i];
        const bool takes_value = word == "--class" || word == "--id" || word == "--hotkey" ||
                                 word == "--users" || word == "--source";
        if (takes_value && i + 1 < words.size()) {
            ++i;
            if (word == "--id")
                item.id = script_.keep(words[i]);
        } else if (const auto id = option(word, "--id"); id && !id->empty()) {
            item.id = script_.keep(*id);
        } else if (!word.starts_with("--") && count < arguments.size()) {
            arguments[count++] = script_.keep(word);
        }
    }
    if (count != 0)
        item.title = arguments[0];
    // In the entry's commands, $1 is the title.
    const auto parameters = arena_->make_array<std::string_view>(count);
    std::copy_n(arguments.begin(), parameters.size(), parameters.begin());
    item.parameters = parameters;
    for (const auto& other : items_.first(item_count_))
        item.position += other.parent == menu_ ? 1 : 0;
    items_[item_count_++] = item;
    return true;
}

bool GrubConfig::include(std::string_view path) noexcept {
    const auto file = locate(path);
    if (!file)
        return false;
    if (++includes_ > max_includes) {
        script_.fail("it includes more than 16 files");
        return false;
    }
    const auto text = read_text(*devices_[file->device].fs, file->path, *arena_);
    if (!text) {
        note("a file that is to be included cannot be read", path);
        return false;
    }
    return script_.run(*text);
}

// `configfile` starts over with another menu; what stands behind it would run only after leaving
// that one.
bool GrubConfig::replace_menu(std::string_view path) noexcept {
    if (target_ != &loading_) {
        note("the entry goes on to another menu", path);
        return false;
    }
    const auto file = locate(path);
    if (!file || kind_of(path) != Kind::File) {
        note("a configuration cannot be read", path);
        return false;
    }
    if (menu_ < 0) {
        item_count_ = 0;
        config_.path = file->path;
        TextBuilder folder(*arena_);
        folder.put('(');
        folder.put(path.starts_with('(') ? part(path, 1, path.find(')') - 1)
                                         : script_.value("root"));
        folder.put(')');
        folder.put(part(file->path, 0, file->path.rfind('/')));
        script_.set("config_directory", folder.view());
        script_.set("config_file", file->path);
    }
    const bool ran = include(path);
    if (menu_ < 0)
        script_.stop();
    return ran;
}

// As GRUB hands a command line over: words joined by blanks, those with blanks in quotation marks.
bool GrubConfig::load_kernel(Words words) noexcept {
    if (words.size() < 2)
        return false;
    const auto file = locate(words[1]);
    if (!file) {
        target_->problem = note_;
        target_->problem_detail = note_detail_;
        return false;
    }
    target_->kernel = *file;
    target_->initrd_count = 0;
    TextBuilder line(*arena_);
    line.put("BOOT_IMAGE=");
    for (std::size_t i = 1; i < words.size(); ++i) {
        if (i != 1)
            line.put(' ');
        const bool quoted = words[i].find(' ') != std::string_view::npos;
        if (quoted)
            line.put('"');
        for (const char c : words[i]) {
            if (c == '\\' || c == '\'' || c == '"')
                line.put('\\');
            line.put(c);
        }
        if (quoted)
            line.put('"');
    }
    if (!line.ok())
        script_.fail("no memory left");
    target_->command_line = line.view();
    return true;
}

bool GrubConfig::load_initrds(Words words) noexcept {
    if (target_->kernel.path.empty()) {
        note("an initrd comes before its kernel", words.size() > 1 ? words[1] : words[0]);
        return false;
    }
    target_->initrd_count = 0;
    for (const auto word : words.subspan(1)) {
        const auto file = word.starts_with("newc:") ? std::nullopt : locate(word);
        if (!file || target_->initrd_count == max_initrds) {
            target_->problem = !file ? "an initrd cannot be located"
                                     : "the entry has more initrds than are read here";
            target_->problem_detail = script_.keep(word);
            return false;
        }
        target_->initrds[target_->initrd_count++] = *file;
    }
    return true;
}

// Fedora's: an entry for each file of loader/entries.
bool GrubConfig::list_bls() noexcept {
    script_.charge(file_steps);
    const auto blsdir = script_.value("blsdir");
    for (const auto name : {script_.value("root"), script_.value("boot")}) {
        const auto device = find_device(name);
        if (!device)
            continue;
        for (const auto folder : {blsdir, std::string_view("/loader/entries"),
                                  std::string_view("/boot/loader/entries")}) {
            if (folder.empty())
                continue;
            const auto listed = list_bls_entries(*devices_[*device].fs, folder, *arena_);
            if (!listed || listed->empty())
                continue;
            for (const auto* const entry : *listed) {
                const std::string_view title = entry->title.empty() ? entry->id : entry->title;
                const std::string_view words[] = {"menuentry", title};
                if (!add_item(words, {}, false))
                    return false;
                auto& item = items_[item_count_ - 1];
                item.id = entry->id;
                item.bls = entry;
                item.bls_device = *device;
            }
            return true;
        }
    }
    note("blscfg finds no entries", {});
    return false;
}

}  // namespace masu::firmware
