// Source -> (decompress) -> (convert) -> disk.raw, with its checksum on the way.
#include "tools/masu/image_import.hpp"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "base/bytes.hpp"
#include "base/file_bytes.hpp"
#include "devices/block/overlay_format.hpp"
#include "tools/masu/decompress.hpp"
#include "tools/masu/host_file.hpp"
#include "tools/masu/qemu_img.hpp"
#include "tools/masu/sparse_file.hpp"

namespace masu::cli {
namespace {

constexpr std::size_t piece_size = 1 * MiB;

// A file or block device that is read.
struct SourceFile {
    Fd fd;
    std::uint64_t size = 0;

    [[nodiscard]] Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> to) const {
        auto got = masu::read_at(fd.get(), to, offset);
        if (!got)
            return fail_errno(got.error().os_errno, "cannot be read at {}", offset);
        return got;
    }
    [[nodiscard]] ReadAt reader() const {
        return [this](std::uint64_t offset, std::span<std::byte> to) {
            // What an image says may lie anywhere; what lies nowhere is short.
            return offset >= size ? Result<std::size_t>(0) : read_at(offset, to);
        };
    }
};

Result<SourceFile> open_source(const std::string& path) {
    SourceFile source{Fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)), 0};
    if (!source.fd)
        return fail_errno(errno, "cannot be opened");
    struct stat status{};
    if (::fstat(source.fd.get(), &status) < 0)
        return fail_errno(errno, "cannot be looked at");
    source.size = static_cast<std::uint64_t>(status.st_size);
    if (S_ISBLK(status.st_mode) && ::ioctl(source.fd.get(), BLKGETSIZE64, &source.size) < 0)
        return fail_errno(errno, "cannot be asked for its size");
    return source;
}

struct Content {
    std::uint64_t size = 0;
    std::string sha256;
};

Result<Content> finished(SparseFile& target) {
    TRY(target.finish());
    if (target.size() == 0)
        return fail("holds an empty disk; was its download or build cut short?");
    return Content{target.size(), target.sha256()};
}

// Where data begin at or after `offset`, so that holes are not read; the end when there are none.
std::uint64_t next_data(const SourceFile& source, std::uint64_t offset) {
    const auto found = ::lseek(source.fd.get(), static_cast<off_t>(offset), SEEK_DATA);
    if (found >= 0)
        return std::min(static_cast<std::uint64_t>(found), source.size);
    return errno == ENXIO ? source.size : offset;
}

Result<Content> copy_raw(const SourceFile& source, const std::string& target, Progress& progress,
                         const Interruptions& interruptions) {
    progress.stage("copying", source.size);
    auto file = TRY(SparseFile::create(target));
    std::vector<std::byte> piece(piece_size);
    while (file.size() < source.size) {
        TRY(interruptions.check());
        const auto hole = next_data(source, file.size()) - file.size();
        if (hole != 0) {
            // In pieces, since checking the sum of a large hole takes its time too.
            TRY(file.skip(std::min<std::uint64_t>(hole, 64 * MiB)));
        } else {
            const auto wanted = std::min<std::uint64_t>(piece.size(), source.size - file.size());
            const auto got = TRY(source.read_at(file.size(), std::span(piece).first(wanted)));
            if (got == 0)
                return fail("became shorter while it was read");
            TRY(file.write(std::span(piece).first(got)));
        }
        progress.update(file.size());
    }
    return finished(file);
}

Result<Content> unpack(const SourceFile& source, Compression compression, const std::string& target,
                       Progress& progress, const Interruptions& interruptions) {
    progress.stage(fmt::format("unpacking {}", word_for(compression)), source.size);
    std::vector<std::byte> packed(piece_size);
    std::uint64_t at = 0;
    const Decompressor::Source next = [&]() -> Result<std::span<const std::byte>> {
        TRY(interruptions.check());
        const auto got = TRY(source.read_at(at, packed));
        at += got;
        progress.update(at);
        return std::span(packed).first(got);
    };
    const auto unpacker = TRY(make_decompressor(compression, next));
    auto file = TRY(SparseFile::create(target));
    std::vector<std::byte> piece(piece_size);
    for (;;) {
        TRY(interruptions.check());  // much may come out of little
        const auto got = TRY(unpacker->read(piece));
        if (got == 0)
            break;
        TRY(file.write(std::span(piece).first(got)));
    }
    return finished(file);
}

Result<Content> checksum(const std::string& path, Progress& progress,
                         const Interruptions& interruptions) {
    const auto source = TRY(open_source(path));
    progress.stage("checking", source.size);
    Sha256 hash;
    std::vector<std::byte> piece(piece_size);
    for (std::uint64_t at = 0; at < source.size;) {
        TRY(interruptions.check());
        const auto hole = std::min<std::uint64_t>(next_data(source, at) - at, 64 * MiB);
        if (hole != 0) {
            hash.add_zeros(hole);
            at += hole;
        } else {
            const auto got = TRY(source.read_at(at, piece));
            if (got == 0)
                return fail("{} became shorter while it was read", path);
            hash.add(std::span(piece).first(got));
            at += got;
        }
        progress.update(at);
    }
    if (source.size == 0)
        return fail("holds an empty disk; was its download or build cut short?");
    return Content{source.size, hash.hex()};
}

Result<Content> convert(const std::string& source, ImageFormat format, const std::string& target,
                        Progress& progress, const Interruptions& interruptions) {
    const auto size = TRY(virtual_size(source, format, interruptions));
    if (size > block::overlay_max_size)
        return fail("would make a disk of {}, and {} is the most there can be", format_size(size),
                    format_size(block::overlay_max_size));
    TRY(check_integrity(source, format, interruptions));
    TRY(convert_to_raw(source, format, target, size, progress, interruptions));
    return checksum(target, progress, interruptions);
}

Result<Image> finish(ImageStore& store, NewImage image, ImageRecord record, Content content) {
    record.size = content.size;
    record.sha256 = std::move(content.sha256);
    const auto disk = TRY(open_source(image.disk()));
    record.boot = TRY(detect_boot_method(disk.reader(), disk.size));
    if (::fsync(disk.fd.get()) < 0)
        return fail_errno(errno, "cannot sync {}", image.disk());
    return store.publish(std::move(image), std::move(record));
}

// The raw disk of `path`, at image.disk().
Result<Content> take_in(const std::string& path, const NewImage& image, ImageRecord& record,
                        Progress& progress, const Interruptions& interruptions) {
    const auto source = TRY(open_source(path));
    const auto compression = TRY(detect_compression(source.reader()));
    record.compression = word_for(compression);
    if (compression == Compression::None) {
        const auto format = TRY(detect_format(source.reader(), source.size));
        record.format = word_for(format);
        return format == ImageFormat::Raw
                   ? copy_raw(source, image.disk(), progress, interruptions)
                   : convert(path, format, image.disk(), progress, interruptions);
    }
    auto content = TRY(unpack(source, compression, image.disk(), progress, interruptions));
    const auto unpacked = TRY(open_source(image.disk()));
    if (TRY(detect_compression(unpacked.reader())) != Compression::None)
        return fail("is compressed twice; unpack it once with {}", word_for(compression));
    const auto format = TRY(detect_format(unpacked.reader(), unpacked.size));
    record.format = word_for(format);
    if (format == ImageFormat::Raw)
        return content;
    const auto inner = image.file("unpacked");
    if (::rename(image.disk().c_str(), inner.c_str()) < 0)
        return fail_errno(errno, "cannot rename {}", image.disk());
    return convert(inner, format, image.disk(), progress, interruptions);
}

}  // namespace

Result<Image> import_image(ImageStore& store, const std::string& path, const std::string& name,
                           const Interruptions& interruptions) {
    TRY(check_host_file("image", path, FileKind::FileOrBlockDevice));
    TRY(store.check_free(name));
    auto image = TRY(store.begin());
    Progress progress(name);
    ImageRecord record;
    record.name = name;
    record.source = path;
    auto content = take_in(path, image, record, progress, interruptions);
    if (!content)
        return in_context("image " + path, content.error());
    return finish(store, std::move(image), std::move(record), *std::move(content));
}

Result<Image> adopt_disk(ImageStore& store, NewImage image, ImageRecord record, Progress& progress,
                         const Interruptions& interruptions) {
    auto content = TRY(checksum(image.disk(), progress, interruptions));
    return finish(store, std::move(image), std::move(record), std::move(content));
}

Result<> check_raw_disk(const std::string& path) {
    auto source = open_source(path);
    if (!source)
        return in_context("disk " + path, source.error());
    const auto compression = detect_compression(source->reader());
    const auto format = detect_format(source->reader(), source->size);
    if (compression && *compression != Compression::None)
        return fail("disk {}: is compressed with {}; import it first with `masu image import {}`",
                    path, word_for(*compression), path);
    if (!format)
        return in_context("disk " + path, format.error());
    if (*format != ImageFormat::Raw)
        return fail("disk {}: is a {} image; import it first with `masu image import {}`", path,
                    word_for(*format), path);
    return {};
}

}  // namespace masu::cli
