// Arguments for qemu-img, and its progress and errors.
#include "tools/masu/qemu_img.hpp"

#include <algorithm>
#include <cstdlib>

#include <boost/json.hpp>

#include "tools/masu/child_program.hpp"

namespace masu::cli {
namespace {

// "backing": null holds even where the image itself names one.
std::string described(const std::string& source, ImageFormat format) {
    boost::json::object image{
        {"driver", qemu_driver(format)},
        {"read-only", true},
        {"file", boost::json::object{{"driver", "file"}, {"filename", source}}}};
    if (format == ImageFormat::Qcow2 || format == ImageFormat::Vmdk)
        image["backing"] = nullptr;
    // The size its maker meant, not the one rounded to cylinders.
    if (format == ImageFormat::Vhd)
        image["force_size_calc"] = "current_size";
    return "json:" + boost::json::serialize(image);
}

// The first line is the cause; "qemu-img: " and our description of the source say nothing more.
std::string complaint(const std::string& errors) {
    auto text = errors.substr(0, errors.find('\n'));
    if (text.starts_with("qemu-img: "))
        text.erase(0, 10);
    if (const auto json = text.find("'json:"); json != std::string::npos)
        if (const auto end = text.find("': ", json); end != std::string::npos)
            text.erase(0, end + 3);
    return text.empty() ? "it did not say why" : text;
}

std::unexpected<Error> refused(const std::string& errors) {
    if (errors.find("No space left on device") != std::string::npos)
        return fail(
            "there is no room left for the converted disk; free some, or set MASU_STATE_DIR to a "
            "folder on a larger disk");
    return fail("cannot be converted; qemu-img says: {}", complaint(errors));
}

// The last "(12.34/100%)" in `text`, of 10000; -1 when there is none.
int hundredths(std::string_view text) {
    const auto end = text.rfind("/100%)");
    const auto begin = end == std::string_view::npos ? end : text.rfind('(', end);
    if (begin == std::string_view::npos)
        return -1;
    const std::string number(text.substr(begin + 1, end - begin - 1));
    return static_cast<int>(std::clamp(std::strtod(number.c_str(), nullptr), 0.0, 100.0) * 100);
}

}  // namespace

Result<> check_integrity(const std::string& source, ImageFormat format,
                         const Interruptions& interruptions) {
    constexpr int cannot_open = 1;
    constexpr int corrupt = 2;
    std::string errors;
    ChildProgram program{.arguments = {"qemu-img", "check", "-q", described(source, format)},
                         .package = "qemu-utils",
                         .environment = {},
                         .output = {},
                         .errors = [&](std::string_view text) { errors += text; }};
    const int status = TRY(run_child(program, interruptions));
    if (status == corrupt)
        return fail(
            "is damaged or cut short: `qemu-img check` finds errors in its tables; fetch it again");
    if (status == cannot_open)
        return refused(errors);
    return {};
}

Result<std::uint64_t> virtual_size(const std::string& source, ImageFormat format,
                                   const Interruptions& interruptions) {
    std::string output;
    std::string errors;
    ChildProgram program{
        .arguments = {"qemu-img", "info", "--output=json", described(source, format)},
        .package = "qemu-utils",
        .environment = {},
        .output = [&](std::string_view text) { output += text; },
        .errors = [&](std::string_view text) { errors += text; }};
    if (TRY(run_child(program, interruptions)) != 0)
        return refused(errors);
    boost::json::error_code error;
    const auto value = boost::json::parse(output, error);
    const auto* object = value.if_object();
    const auto* size = object == nullptr ? nullptr : object->if_contains("virtual-size");
    if (error || size == nullptr || !size->is_number())
        return fail("cannot be converted; qemu-img does not tell its size");
    return size->to_number<std::uint64_t>();
}

Result<> convert_to_raw(const std::string& source, ImageFormat format, const std::string& target,
                        std::uint64_t size, Progress& progress,
                        const Interruptions& interruptions) {
    std::string errors;
    std::string tail;
    progress.stage(fmt::format("converting {}", word_for(format)), size);
    ChildProgram program{
        .arguments = {"qemu-img", "convert", "-p", "-O", "raw", described(source, format), target},
        .package = "qemu-utils",
        .environment = {},
        .output =
            [&](std::string_view text) {
                tail = (tail + std::string(text)).substr(tail.size() > 64 ? tail.size() - 64 : 0);
                if (const int done = hundredths(tail); done >= 0)
                    progress.update(size / 10'000 * static_cast<std::uint64_t>(done));
            },
        .errors = [&](std::string_view text) { errors += text; }};
    if (TRY(run_child(program, interruptions)) != 0)
        return refused(errors);
    return {};
}

}  // namespace masu::cli
