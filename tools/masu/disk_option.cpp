// Parses --disk, and turns it into an API request.
#include "tools/masu/disk_option.hpp"

#include "base/bytes.hpp"
#include "devices/block/disk.hpp"
#include "tools/masu/host_file.hpp"
#include "tools/masu/optional_members.hpp"

namespace masu::cli {
namespace {

constexpr std::size_t serial_max = 20;  // VIRTIO_BLK_T_GET_ID

Result<std::uint64_t> parse_rate(std::string_view key, std::string_view text) {
    const auto value = parse_size(text);
    if (!value || *value == 0)
        return fail("--disk: {}={} is not a rate: write a whole number above 0, such as {}", key,
                    text, key == "iops" ? "5000" : "100M");
    return *value;
}

Result<std::uint64_t> parse_overlay_size(std::string_view text) {
    const auto value = parse_size(text);
    if (!value || *value == 0 || *value % block::sector_size != 0)
        return fail(
            "--disk: size={} is not the size of a disk: write a multiple of 512, such as 20G",
            text);
    return *value;
}

Result<> check_serial(std::string_view serial) {
    bool good = !serial.empty() && serial.size() <= serial_max;
    for (const char c : serial)
        good = good && c > ' ' && c <= '~';
    if (!good)
        return fail("--disk: serial={} must be 1 to {} printable characters without spaces", serial,
                    serial_max);
    return {};
}

Result<> apply(DiskOption& disk, std::string_view key, std::optional<std::string> value) {
    if (key == "ro" || key == "direct") {
        if (value)
            return fail("--disk: {} takes no value", key);
        (key == "ro" ? disk.read_only : disk.direct) = true;
        return {};
    }
    if (key != "overlay" && key != "size" && key != "serial" && key != "iops" && key != "bw")
        return fail(
            "--disk: unknown setting \"{}\"; known are ro, overlay=FILE, size=SIZE, serial=S, "
            "iops=N, bw=N and direct (write a comma in a file name twice)",
            key);
    if (!value || value->empty())
        return fail("--disk: {} needs a value: {}=...", key, key);
    if (key == "overlay") {
        disk.overlay = std::move(value);
    } else if (key == "size") {
        disk.overlay_size = TRY(parse_overlay_size(*value));
    } else if (key == "serial") {
        TRY(check_serial(*value));
        disk.serial = std::move(value);
    } else if (key == "iops") {
        disk.iops = TRY(parse_rate(key, *value));
    } else {
        disk.bandwidth = TRY(parse_rate(key, *value));
    }
    return {};
}

boost::json::object per_second(std::uint64_t rate) {
    return {{"size", rate}, {"refill_time", 1000}};
}

}  // namespace

std::vector<std::string> split_at_single_commas(std::string_view text) {
    std::vector<std::string> parts(1);
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] != ',') {
            parts.back() += text[i];
        } else if (i + 1 < text.size() && text[i + 1] == ',') {
            parts.back() += ',';
            ++i;
        } else {
            parts.emplace_back();
        }
    }
    return parts;
}

Result<DiskOption> parse_disk_option(std::string_view text) {
    const auto parts = split_at_single_commas(text);
    DiskOption disk;
    disk.path = parts.front();
    if (disk.path.empty())
        return fail("--disk {}: the file name is missing; it comes first", text);
    for (std::size_t i = 1; i < parts.size(); ++i) {
        const auto equals = parts[i].find('=');
        std::optional<std::string> value;
        if (equals != std::string::npos)
            value = parts[i].substr(equals + 1);
        TRY(apply(disk, std::string_view(parts[i]).substr(0, equals), std::move(value)));
    }
    if (disk.read_only && disk.overlay)
        return fail(
            "--disk {}: ro and overlay= exclude each other; an overlay exists to be "
            "written, and its base is never written anyway",
            disk.path);
    if (disk.overlay_size && !disk.overlay)
        return fail("--disk {}: size= is that of an overlay; give overlay= too, or resize the file",
                    disk.path);
    return disk;
}

Result<> resolve_disk(DiskOption& disk) {
    disk.path = absolute_path(disk.path);
    TRY(check_host_file("disk", disk.path, FileKind::FileOrBlockDevice));
    if (disk.overlay) {
        disk.overlay = absolute_path(*disk.overlay);
        if (*disk.overlay == disk.path)
            return fail("disk {}: its overlay is the same file; name another one", disk.path);
    }
    return {};
}

boost::json::object drive_request(const DiskOption& disk, std::string_view id) {
    boost::json::object request{{"drive_id", id},
                                {"path_on_host", disk.path},
                                {"is_root_device", false},
                                {"is_read_only", disk.read_only},
                                {"cache_type", "Writeback"}};
    if (disk.overlay)
        request["overlay_path"] = *disk.overlay;
    if (disk.overlay_size)
        request["overlay_size"] = *disk.overlay_size;
    if (disk.serial)
        request["serial"] = *disk.serial;
    if (disk.direct)
        request["direct"] = true;
    boost::json::object limits;
    if (disk.iops)
        limits["ops"] = per_second(*disk.iops);
    if (disk.bandwidth)
        limits["bandwidth"] = per_second(*disk.bandwidth);
    if (!limits.empty())
        request["rate_limiter"] = std::move(limits);
    return request;
}

boost::json::object to_json(const DiskOption& disk) {
    boost::json::object object{
        {"path", disk.path}, {"read_only", disk.read_only}, {"direct", disk.direct}};
    if (disk.overlay)
        object["overlay"] = *disk.overlay;
    if (disk.overlay_size)
        object["overlay_size"] = *disk.overlay_size;
    if (disk.serial)
        object["serial"] = *disk.serial;
    if (disk.iops)
        object["iops"] = *disk.iops;
    if (disk.bandwidth)
        object["bandwidth"] = *disk.bandwidth;
    return object;
}

DiskOption disk_from_json(const boost::json::object& object) {
    DiskOption disk;
    disk.path = std::string(object.at("path").as_string());
    disk.read_only = object.at("read_only").as_bool();
    disk.direct = object.at("direct").as_bool();
    disk.overlay = text_of(object, "overlay");
    disk.overlay_size = number_of(object, "overlay_size");
    disk.serial = text_of(object, "serial");
    disk.iops = number_of(object, "iops");
    disk.bandwidth = number_of(object, "bandwidth");
    return disk;
}

}  // namespace masu::cli
