// What is known of an imported image: the content of image.json.
#pragma once

#include <cstdint>
#include <string>

#include <boost/json/object.hpp>

#include "base/result.hpp"
#include "tools/masu/boot_method.hpp"

namespace masu::cli {

struct ImageRecord {
    std::string name;
    std::string id;            // 16 hex digits; tells two images apart that had one name in turn
    std::int64_t created = 0;  // Unix time, seconds
    std::uint64_t size = 0;    // of the disk, bytes
    std::string source;        // the file it came from, or "masu image build"
    std::string format;        // of that file: "qcow2", "raw", ...
    std::string compression;   // of that file: "xz", or empty
    std::string sha256;        // of the disk's content, hex
    BootMethod boot;
};

[[nodiscard]] boost::json::object to_json(const ImageRecord& record);
[[nodiscard]] Result<ImageRecord> parse_image_record(const std::string& text);

}  // namespace masu::cli
