// Names and paths told apart, sizes compared.
#include "tools/masu/image_disk.hpp"

#include <unistd.h>

#include <filesystem>

#include "base/bytes.hpp"
#include "devices/block/overlay_format.hpp"
#include "tools/masu/host_file.hpp"
#include "tools/masu/image_import.hpp"

namespace masu::cli {
namespace {

Result<> set_size(ImageDisk& chosen, std::uint64_t base, std::optional<std::uint64_t> size,
                  const std::string& what) {
    if (!size)
        return {};
    if (*size < base)
        return fail(
            "--disk-size {}: {} is {} already, and a disk can only grow; choose at least that, or "
            "leave the option out",
            format_size(*size), what, format_size(base));
    chosen.disk.overlay_size = size;
    return {};
}

}  // namespace

Result<std::uint64_t> parse_disk_size(std::string_view option, const std::string& text) {
    const auto size = parse_size(text);
    if (!size)
        return fail("{} {}: {}", option, text, size.error().message);
    if (*size == 0 || *size % MiB != 0 || *size > block::overlay_max_size)
        return fail("{} {}: must be a multiple of 1M, at most {}", option, text,
                    format_size(block::overlay_max_size));
    return *size;
}

Result<ImageDisk> choose_image(const ImageStore& store, const std::string& word,
                               const std::string& overlay, std::optional<std::uint64_t> size) {
    ImageDisk chosen;
    chosen.disk.overlay = overlay;
    if (word.find('/') == std::string::npos) {
        chosen.hold = TRY(store.hold());
        if (store.exists(word)) {
            const auto image = TRY(store.find(word));
            chosen.image = word;
            chosen.disk.path = image.disk;
            TRY(set_size(chosen, image.record.size, size, "image " + word));
            return chosen;
        }
        chosen.hold.reset();
    }
    chosen.disk.path = absolute_path(word);
    if (::access(chosen.disk.path.c_str(), F_OK) < 0 && errno == ENOENT)
        return fail(
            "there is no image and no file named {}; `masu image ls` lists the images, and `masu "
            "image import FILE` makes one of a file",
            word);
    TRY(check_host_file("disk", chosen.disk.path, FileKind::FileOrBlockDevice));
    TRY(check_raw_disk(chosen.disk.path));
    std::error_code no_file;  // a block device: the monitor will compare
    const auto base = std::filesystem::file_size(chosen.disk.path, no_file);
    TRY(set_size(chosen, no_file ? 0 : base, size, "disk " + chosen.disk.path));
    return chosen;
}

}  // namespace masu::cli
