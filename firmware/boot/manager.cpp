#include "firmware/boot/manager.hpp"

#include "firmware/boot/linux_disks.hpp"
#include "firmware/platform/clock.hpp"
#include "firmware/platform/cpu.hpp"
#include "firmware/platform/say.hpp"
#include "firmware/protocols/file_names.hpp"
#include "firmware/protocols/install.hpp"
#include "firmware/runtime/runtime.hpp"
#include "firmware/services/events.hpp"
#include "firmware/services/handles.hpp"
#include "firmware/services/images.hpp"

namespace masu::firmware {

using efi::Status;

namespace {

constexpr std::uint64_t menu_wait = 3 * clock::per_second;
constexpr std::uint64_t watchdog_seconds = 300;  // 3.1.2: while a boot option runs

constexpr std::size_t max_load_options = 4096;

// One thing that can be tried.
struct Option {
    std::uint64_t disk = 0;         // from 1
    BlockDevice* device = nullptr;  // with the file system that holds the loader
    std::uint64_t partition = 0;    // 0: the whole disk
};
constexpr std::size_t max_options = 32;
constexpr std::size_t max_file_systems = 16;  // each has a cache: the memory is counted
struct Options {
    Option list[max_options] = {};
    std::size_t count = 0;
    void add(const Option& option) noexcept {
        if (count < max_options)
            list[count++] = option;
    }
};

// The removable-media loader (3.5.1.1).
constexpr char16_t loader_name[] = u"\\EFI\\BOOT\\BOOTX64.EFI";

// The loader's path behind its device's own.
std::size_t make_loader_path(const BlockDevice& device, std::byte (&to)[256]) noexcept {
    const auto* own = reinterpret_cast<const efi::DevicePath*>(&device.path);
    const std::size_t head = efi::path_length(own).value_or(0);
    const auto size = static_cast<std::uint8_t>(sizeof(efi::DevicePath) + sizeof loader_name);
    const efi::DevicePath node{efi::type_media, efi::media_file_path, {size, 0}};
    const efi::EndNode end;
    std::memcpy(to, own, head);
    std::memcpy(to + head, &node, sizeof node);
    std::memcpy(to + head + sizeof node, loader_name, sizeof loader_name);
    std::memcpy(to + head + size, &end, sizeof end);
    return head + size + sizeof end;
}

bool has_loader(const BlockDevice& device) noexcept {
    auto* volume =
        find_interface<efi::SimpleFileSystem>(device.handle, efi::guid::simple_file_system);
    efi::File* root = nullptr;
    efi::File* file = nullptr;
    if (volume == nullptr || volume->open_volume(volume, &root) != Status::Success)
        return false;
    const bool found =
        root->open(root, &file, loader_name, efi::file_mode_read, 0) == Status::Success;
    if (found)
        (void)file->close(file);
    (void)root->close(root);
    return found;
}

// EFI system partitions first, then any other FAT file system, then a disk that is one itself.
void add_loaders(Disk& disk, std::uint64_t number, Options& options) noexcept {
    for (const bool system : {true, false}) {
        std::size_t at = 0;
        for (const auto& partition : disk.table.partitions) {
            auto* device = at < std::size(disk.partitions) ? disk.partitions[at] : nullptr;
            ++at;
            if (device != nullptr && is_esp(partition) == system && has_loader(*device))
                options.add({number, device, partition.number});
        }
    }
    if (has_loader(disk.device))
        options.add({number, &disk.device, 0});
}

void install_file_systems(std::span<Disk* const> disks) noexcept {
    std::size_t left = max_file_systems;
    for (auto* disk : disks) {
        if (disk->table.scheme == Scheme::None && left > 0 && install_file_system(disk->device))
            --left;
        for (auto* device : disk->partitions)
            if (device != nullptr && left > 0 && install_file_system(*device))
                --left;
    }
    if (left == 0)
        say("only the first ", std::uint64_t{max_file_systems}, " FAT file systems are looked at");
}

void say_option(const Option& option) noexcept {
    put(std::string_view("disk "));
    put(option.disk);
    if (option.partition != 0) {
        put(std::string_view(", partition "));
        put(option.partition);
    }
    put(std::string_view(": \\EFI\\BOOT\\BOOTX64.EFI\r\n"));
}

// What the monitor was given as the kernel's command line, for an EFI stub.
bool set_options(efi::Handle image, const BootInfo& info) noexcept {
    if (info.load_options_size == 0)
        return true;
    char16_t wide[max_load_options];
    const std::string_view text(reinterpret_cast<const char*>(info.load_options),
                                info.load_options_size);
    return set_load_options(image, {wide, to_utf16(text, wide)});
}

void run(const Option& option, const BootInfo& info) noexcept {
    alignas(8) std::byte path[256];
    (void)make_loader_path(*option.device, path);
    efi::Handle image = nullptr;
    const auto* device_path = reinterpret_cast<const efi::DevicePath*>(path);
    auto status = load_image(firmware_image(), device_path, {}, image);
    if (status != Status::Success) {
        put(std::string_view("masu: cannot load "));
        say_option(option);
        return;
    }
    if (!set_options(image, info)) {
        say("too little memory for the boot loader's command line");
        return;
    }
    signal_group(efi::guid::group_ready_to_boot);
    set_watchdog(watchdog_seconds);
    status = start_image(image);
    set_watchdog(0);
    put(std::string_view("\r\n"));
    say("the boot loader of disk ", option.disk, " ended with status ",
        Hex{static_cast<std::uint64_t>(status)});
}

std::optional<efi::InputKey> wait_for_key(std::uint64_t time) noexcept {
    const std::uint64_t end = clock::now() + time;
    while (time == 0 || clock::now() < end) {
        if (const auto key = read_key())
            return key;
        cpu::pause();
    }
    return std::nullopt;
}

// The option that was chosen, options.count for Linux; the first when nobody presses a key.
std::size_t menu(const Options& options) noexcept {
    say("press any key for the boot menu");
    if (!wait_for_key(menu_wait))
        return 0;
    for (std::size_t i = 0; i < options.count && i < 9; ++i) {
        put(std::string_view("  "));
        put(std::uint64_t{i + 1});
        put(std::string_view("  "));
        say_option(options.list[i]);
    }
    put(std::string_view("  l  Linux as the disks' own GRUB, BLS or extlinux configuration says\r\n"));
    put(std::string_view("  r  reset\r\n  o  power off\r\n"));
    say("choose one");
    for (;;) {
        const auto key = wait_for_key(0);
        if (key->unicode == u'r')
            reset(efi::ResetType::Cold);
        if (key->unicode == u'o')
            reset(efi::ResetType::Shutdown);
        if (key->unicode == u'l')
            return options.count;
        if (key->unicode == u'\r')
            return 0;
        if (key->unicode >= u'1' && key->unicode < u'1' + options.count)
            return static_cast<std::size_t>(key->unicode - u'1');
    }
}

}  // namespace

void boot(std::span<Disk* const> disks, const BootInfo& info) noexcept {
    const std::uint32_t device = info.boot_device;
    if (disks.empty()) {
        say("the machine has no disk");
        return;
    }
    if (device > disks.size()) {
        say("disk ", std::uint64_t{device}, " was asked for, and there are ",
            std::uint64_t{disks.size()});
        return;
    }
    install_file_systems(disks);
    Options options;
    for (std::size_t i = 0; i < disks.size(); ++i)
        if (device == 0 || device == i + 1)
            add_loaders(*disks[i], i + 1, options);
    // The last choice is Linux on the disks themselves; from the one chosen on, each is tried.
    const std::size_t choices = options.count + 1;
    const std::size_t first = (info.flags & flag_boot_menu) != 0 ? menu(options) : 0;
    for (std::size_t i = 0; i < choices; ++i) {
        const std::size_t choice = (first + i) % choices;
        if (choice < options.count)
            run(options.list[choice], info);
        else
            boot_linux(disks, info);
    }
}

}  // namespace masu::firmware
