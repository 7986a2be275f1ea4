// Reads and writes image.json.
#include "tools/masu/image_record.hpp"

#include <boost/json.hpp>

namespace masu::cli {
namespace {

std::string text_at(const boost::json::object& object, std::string_view key) {
    return std::string(object.at(key).as_string());
}

}  // namespace

boost::json::object to_json(const ImageRecord& record) {
    return {{"name", record.name},
            {"id", record.id},
            {"created", record.created},
            {"size", record.size},
            {"source", record.source},
            {"format", record.format},
            {"compression", record.compression},
            {"sha256", record.sha256},
            {"boot", boost::json::object{{"method", word_for(record.boot.kind)},
                                         {"partition_table", record.boot.partition_table},
                                         {"detail", record.boot.detail}}}};
}

Result<ImageRecord> parse_image_record(const std::string& text) {
    try {
        const auto value = boost::json::parse(text);
        const auto& object = value.as_object();
        ImageRecord record;
        record.name = text_at(object, "name");
        record.id = text_at(object, "id");
        record.created = object.at("created").to_number<std::int64_t>();
        record.size = object.at("size").to_number<std::uint64_t>();
        record.source = text_at(object, "source");
        record.format = text_at(object, "format");
        record.compression = text_at(object, "compression");
        record.sha256 = text_at(object, "sha256");
        const auto& boot = object.at("boot").as_object();
        record.boot.kind = boot_kind_from(text_at(boot, "method"));
        record.boot.partition_table = text_at(boot, "partition_table");
        record.boot.detail = text_at(boot, "detail");
        return record;
    } catch (const std::exception& error) {
        return fail("is not an image record of this version: {}", error.what());
    }
}

}  // namespace masu::cli
