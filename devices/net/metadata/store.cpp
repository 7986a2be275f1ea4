// Replacing and merging the metadata document.
#include "devices/net/metadata/store.hpp"

#include <boost/json.hpp>
#include <cerrno>

namespace masu::net {
namespace {

namespace json = boost::json;

Result<json::value> parse(std::string_view text) {
    json::error_code error;
    json::stream_parser parser;  // stops at depth 32
    parser.write(text.data(), text.size(), error);
    if (!error)
        parser.finish(error);
    if (error)
        return fail("the metadata is not valid JSON: {}", error.message());
    return parser.release();
}

// RFC 7396, 2. Depth is bounded by that of the patch, which parse() bounded.
void merge(json::value& target, const json::value& patch) {
    if (!patch.is_object()) {
        target = patch;
        return;
    }
    if (!target.is_object())
        target = json::object();
    auto& object = target.get_object();
    for (const auto& entry : patch.get_object()) {
        if (entry.value().is_null())
            object.erase(entry.key());
        else
            merge(object[entry.key()], entry.value());
    }
}

}  // namespace

Result<> MetadataStore::put(std::string_view text) {
    return replace(TRY(parse(text)));
}

Result<> MetadataStore::patch(std::string_view text) {
    if (!document_)
        return fail("there is no metadata to change yet; PUT it first");
    auto merged = *document_;
    merge(merged, TRY(parse(text)));
    return replace(std::move(merged));
}

Result<> MetadataStore::replace(json::value document) {
    const auto size = json::serialize(document).size();
    if (size > limit_)
        return std::unexpected(Error{
            fmt::format("the metadata would have {} bytes, but may have {} at most", size, limit_),
            EFBIG});
    document_ = std::move(document);
    return {};
}

std::string MetadataStore::text() const {
    return document_ ? json::serialize(*document_) : "{}";
}

}  // namespace masu::net
