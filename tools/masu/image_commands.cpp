// masu image: build, import, ls, inspect, rm.
#include <sys/stat.h>
#include <CLI/App.hpp>

#include <cstdio>
#include <memory>

#include <boost/json.hpp>

#include "base/bytes.hpp"
#include "tools/masu/commands.hpp"
#include "tools/masu/host_file.hpp"
#include "tools/masu/image_build.hpp"
#include "tools/masu/image_disk.hpp"
#include "tools/masu/image_import.hpp"
#include "tools/masu/image_store.hpp"
#include "tools/masu/json_output.hpp"
#include "tools/masu/vm_status.hpp"

namespace masu::cli {
namespace {

Result<ImageStore> open_images() {
    return ImageStore(TRY(find_own_places()));
}

// What the disk takes on the host, holes not counted.
std::uint64_t stored_size(const std::string& path) {
    struct stat status{};
    constexpr std::uint64_t unit = 512;  // of st_blocks, always
    return ::stat(path.c_str(), &status) == 0 ? static_cast<std::uint64_t>(status.st_blocks) * unit
                                              : 0;
}

std::string source_format(const ImageRecord& record) {
    return record.format + (record.compression.empty() ? "" : "." + record.compression);
}

boost::json::object describe(const ImageStore& store, const Image& image) {
    auto object = to_json(image.record);
    object["stored"] = stored_size(image.disk);
    object["disk"] = image.disk;
    boost::json::array users;
    if (const auto names = store.users(image.record.name))
        for (const auto& name : *names)
            users.emplace_back(name);
    object["used_by"] = std::move(users);
    return object;
}

void announce(const Image& image, const char* what) {
    std::printf(
        "%s", fmt::format("{} is {}: {} disk, {} stored; boot: {} ({})\n", image.record.name, what,
                          format_size(image.record.size), format_size(stored_size(image.disk)),
                          word_for(image.record.boot.kind), image.record.boot.detail)
                  .c_str());
}

Result<int> import(const std::string& file, std::string name) {
    const Interruptions interruptions;
    auto store = TRY(open_images());
    if (name.empty())
        name = image_name_from(file);
    if (const auto good = check_image_name(name); !good)
        return fail("{}; give one after the file", good.error().message);
    announce(TRY(import_image(store, absolute_path(file), name, interruptions)), "imported");
    return 0;
}

Result<int> build(const std::string& name, const std::string& size_text) {
    const Interruptions interruptions;
    auto store = TRY(open_images());
    const auto size = TRY(parse_disk_size("--size", size_text));
    announce(TRY(build_image(store, name, size, interruptions)), "built");
    return 0;
}

Result<int> list(bool only_names, OutputFormat format) {
    const auto store = TRY(open_images());
    boost::json::array array;
    std::string table = fmt::format("{:<28} {:>9} {:>9} {:<11} {:<8} {:>8}\n", "NAME", "SIZE",
                                    "STORED", "FORMAT", "BOOT", "AGE");
    std::string names;
    for (const auto& name : TRY(store.names())) {
        names += name + "\n";
        if (only_names)
            continue;
        const auto image = store.find(name);
        if (!image) {
            note(image.error().message);
            continue;
        }
        const auto& record = image->record;
        array.push_back(describe(store, *image));
        table +=
            fmt::format("{:<28} {:>9} {:>9} {:<11} {:<8} {:>8}\n", name, format_size(record.size),
                        format_size(stored_size(image->disk)), source_format(record),
                        word_for(record.boot.kind), format_age(record.created));
    }
    if (only_names)
        std::fputs(names.c_str(), stdout);
    else if (format == OutputFormat::Json)
        print_json(array);
    else
        std::fputs(table.c_str(), stdout);
    return 0;
}

Result<int> inspect(const std::string& name, OutputFormat format) {
    const auto store = TRY(open_images());
    const auto image = TRY(store.find(name));
    const auto object = describe(store, image);
    if (format == OutputFormat::Json) {
        print_json(object);
        return 0;
    }
    for (const auto& member : object) {
        auto text = plain_text(member.value());
        if (member.key() == "size" || member.key() == "stored")
            text += fmt::format(" ({})", format_size(member.value().to_number<std::uint64_t>()));
        std::printf("%-14s %s\n", std::string(member.key()).c_str(), text.c_str());
    }
    return 0;
}

Result<int> remove(const std::vector<std::string>& names) {
    auto store = TRY(open_images());
    int status = 0;
    for (const auto& name : names)
        if (const auto done = store.remove(name); !done) {
            note(done.error().message);
            status = 1;
        }
    return status;
}

void add_import(CLI::App& image, Invocation& invocation) {
    struct Options {
        std::string file;
        std::string name;
    };
    auto* command = image.add_subcommand("import", "Make an image of a disk file");
    auto options = std::make_shared<Options>();
    command
        ->add_option("file", options->file,
                     "A raw, qcow2, VMDK, VHD, VHDX or VDI disk, also packed with xz, zstd or gzip")
        ->type_name(file_value)
        ->required();
    command
        ->add_option("name", options->name,
                     "Name of the image (default: the file's, without its endings)")
        ->type_name("NAME");
    command->footer(
        "The content tells the format, never the name. The file stays as it is. Images that name\n"
        "other files of this host (a backing file, an external data file, a parent) are refused.\n"
        "Other formats than raw need qemu-img, of Debian's package qemu-utils.\n"
        "\n"
        "Examples:\n"
        "  masu image import debian-12-generic-amd64.qcow2 debian\n"
        "  masu image import disk.raw.xz web\n"
        "  masu image import /dev/vg0/server");
    command->callback([options, &invocation] {
        invocation.run = [options] { return import(options->file, options->name); };
    });
}

void add_build(CLI::App& image, Invocation& invocation) {
    struct Options {
        std::string name = "debian-12";
        std::string size = "3G";
    };
    auto* command = image.add_subcommand("build", "Make a Debian 12 cloud image from packages");
    auto options = std::make_shared<Options>();
    command->add_option("name", options->name, "Name of the image (default debian-12)")
        ->type_name("NAME");
    command->add_option("--size", options->size, "Size of its disk (default 3G)")
        ->type_name("SIZE");
    command->footer(
        "GPT, EFI partition with GRUB, ext4 root, cloud-init, growpart, OpenSSH and a serial\n"
        "console, from this machine's own apt sources. Needs root, the packages mmdebstrap, "
        "fdisk,\n"
        "e2fsprogs, dosfstools and mtools, and a few minutes. No password is set: who may log in\n"
        "is for cloud-init to say.\n"
        "\n"
        "Examples:\n"
        "  masu image build\n"
        "  masu image build debian-large --size 20G");
    command->callback([options, &invocation] {
        invocation.run = [options] { return build(options->name, options->size); };
    });
}

void add_ls(CLI::App& image, Invocation& invocation) {
    struct Options {
        bool names = false;
        OutputFormat format = OutputFormat::Text;
    };
    auto* command = image.add_subcommand("ls", "List images");
    auto options = std::make_shared<Options>();
    command->add_flag("-q,--names", options->names, "Names only");
    add_output_option(*command, options->format);
    command->footer(
        "BOOT is how it starts: \"uefi\" by the loader in its EFI partition, \"menu\" by the menu "
        "in\n"
        "its boot or root partition, \"unknown\" when there is neither.\n"
        "\n"
        "Examples:\n"
        "  masu image ls\n"
        "  masu image ls --output json");
    command->callback([options, &invocation] {
        invocation.run = [options] { return list(options->names, options->format); };
    });
}

void add_inspect(CLI::App& image, Invocation& invocation) {
    struct Options {
        std::string name;
        OutputFormat format = OutputFormat::Text;
    };
    auto* command = image.add_subcommand("inspect", "Show everything about an image");
    auto options = std::make_shared<Options>();
    command->add_option("image", options->name, "Name of the image")
        ->type_name(image_value)
        ->required();
    add_output_option(*command, options->format);
    command->footer(
        "The checksum is that of the disk's content, as `sha256sum` finds it.\n"
        "\n"
        "Examples:\n"
        "  masu image inspect debian\n"
        "  masu image inspect debian --output json | jq -r .sha256");
    command->callback([options, &invocation] {
        invocation.run = [options] { return inspect(options->name, options->format); };
    });
}

void add_rm(CLI::App& image, Invocation& invocation) {
    auto* command = image.add_subcommand("rm", "Delete images");
    auto names = std::make_shared<std::vector<std::string>>();
    command->add_option("image", *names, "Names of images")->type_name(image_value)->required();
    command->footer(
        "An image that a VM uses, running or not, stays; delete the VM first.\n"
        "\n"
        "Example:\n"
        "  masu image rm debian");
    command->callback(
        [names, &invocation] { invocation.run = [names] { return remove(*names); }; });
}

}  // namespace

void add_image_command(CLI::App& program, Invocation& invocation) {
    auto* image = program.add_subcommand("image", "Make, list and delete disk images");
    image->require_subcommand(1);
    add_import(*image, invocation);
    add_build(*image, invocation);
    add_ls(*image, invocation);
    add_inspect(*image, invocation);
    add_rm(*image, invocation);
    image->footer(
        "`masu run IMAGE` never changes an image: each VM writes to an overlay of its own.\n"
        "\n"
        "Examples:\n"
        "  masu image import debian-12-generic-amd64.qcow2 debian\n"
        "  masu image ls\n"
        "  masu run debian --name web");
}

}  // namespace masu::cli
