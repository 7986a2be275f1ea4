// Paths, tokens and formats of the metadata service.
#include "devices/net/metadata/service.hpp"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <charconv>
#include <vector>

namespace masu::net {
namespace {

namespace json = boost::json;

constexpr std::string_view token_path = "/latest/api/token";

// The versions that clients ask for; each shows the same tree.
constexpr std::array<std::string_view, 8> versions{"1.0",        "2007-01-19", "2009-04-04",
                                                   "2016-09-02", "2018-09-24", "2020-10-27",
                                                   "2021-03-23", "latest"};

std::vector<std::string_view> components(std::string_view path) {
    std::vector<std::string_view> parts;
    while (!path.empty()) {
        path.remove_prefix(path.front() == '/' ? 1 : 0);
        const auto end = path.find('/');
        if (const auto part = path.substr(0, end); !part.empty())
            parts.push_back(part);
        path = end == std::string_view::npos ? std::string_view() : path.substr(end);
    }
    return parts;
}

std::string_view view(const json::string& text) {
    return {text.data(), text.size()};
}

MetadataResponse refusal(unsigned status, std::string text) {
    return {.status = status, .body = std::move(text)};
}

// In the EC2 dialect a key "0=my-key" is listed like that and found as "0".
const json::value* child(const json::value& parent, std::string_view name, bool ec2) {
    const auto* object = parent.if_object();
    if (object == nullptr)
        return nullptr;
    if (const auto* found = object->if_contains(json::string_view(name.data(), name.size())))
        return found;
    if (!ec2)
        return nullptr;
    for (const auto& entry : *object) {
        const std::string_view key(entry.key().data(), entry.key().size());
        if (key.size() > name.size() && key.starts_with(name) && key[name.size()] == '=')
            return &entry.value();
    }
    return nullptr;
}

std::string listing(const json::object& object, bool ec2) {
    std::string text;
    for (const auto& entry : object) {
        const std::string_view key(entry.key().data(), entry.key().size());
        if (!text.empty())
            text += '\n';
        text += key;
        if (entry.value().is_object() && !(ec2 && key.contains('=')))
            text += '/';
    }
    return text;
}

std::string version_listing() {
    std::string text;
    for (const auto version : versions)
        text += (text.empty() ? "" : "\n") + std::string(version);
    return text;
}

}  // namespace

TcpApplication::Step MetadataService::serve(const Address& /*peer*/, const Address& /*local*/,
                                            std::string_view received, Nanoseconds now) {
    const auto parsed = parse_metadata_request(received);
    if (parsed.state == ParsedRequest::State::Incomplete)
        return {};
    if (parsed.state == ParsedRequest::State::Bad)
        return {.consumed = received.size(),
                .response = format_metadata_response(
                    refusal(400, "the request is malformed or too large"), false, false),
                .close = true};
    const auto& request = parsed.request;
    const bool is_token = request.method == "PUT" && request.path == token_path;
    return {.consumed = parsed.consumed,
            .response = format_metadata_response(answer(request, now), request.keep_alive,
                                                 request.method == "HEAD"),
            .close = !request.keep_alive,
            .hop_limit = is_token ? options_.token_hop_limit : std::uint8_t{64}};
}

MetadataResponse MetadataService::answer(const MetadataRequest& request, Nanoseconds now) {
    if (request.method == "PUT") {
        if (request.path == token_path)
            return make_token(request, now);
        // Tokens are made under `latest` only.
        if (options_.ec2 && request.path.ends_with("/api/token"))
            return refusal(403, "tokens are made under /latest only");
    } else if (request.method == "GET" || request.method == "HEAD") {
        if (!authorized(request, now))
            return refusal(401, "a valid session token is needed; PUT /latest/api/token first");
        return read(request);
    }
    auto response = refusal(405, "the method is not allowed here");
    response.extra_headers = options_.ec2 ? "Allow: GET, HEAD, PUT\r\n" : "Allow: GET, PUT\r\n";
    return response;
}

MetadataResponse MetadataService::make_token(const MetadataRequest& request, Nanoseconds now) {
    // A proxy passed it on: the one who asks is not the guest itself.
    if (request.forwarded)
        return refusal(options_.ec2 ? 403 : 400, "requests with X-Forwarded-For get no token");
    unsigned ttl = 0;
    const auto text = request.token_ttl.value_or("");
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), ttl);
    if (error != std::errc() || end != text.data() + text.size() || ttl == 0 ||
        ttl > SessionTokens::max_ttl_seconds)
        return refusal(400, "the time to live of a token must be 1 to 21600 seconds");
    MetadataResponse response;
    response.body = tokens_.create(ttl, now);
    if (response.body.empty())
        return refusal(503, "no token can be made now");
    response.extra_headers = request.aws_ttl_header ? "X-aws-ec2-metadata-token-ttl-seconds: "
                                                    : "X-metadata-token-ttl-seconds: ";
    response.extra_headers += std::to_string(ttl) + "\r\n";
    return response;
}

bool MetadataService::authorized(const MetadataRequest& request, Nanoseconds now) const {
    if (options_.tokens_required)
        return request.token && tokens_.valid(*request.token, now);
    // EC2 refuses a bad token also where none is needed; MMDS V1 looks at none.
    return !options_.ec2 || !request.token || tokens_.valid(*request.token, now);
}

MetadataResponse MetadataService::read(const MetadataRequest& request) const {
    auto parts = components(request.path);
    if (options_.ec2) {
        if (parts.empty())
            return {.body = version_listing()};
        if (std::ranges::find(versions, parts.front()) == versions.end())
            return refusal(404, "not found");
        parts.erase(parts.begin());
    }
    const auto* value = store_.document();
    for (const auto part : parts)
        if (value != nullptr)
            value = child(*value, part, options_.ec2);
    if (value == nullptr)
        return refusal(404, "not found");
    if (request.wants_json && !options_.ec2 && !options_.text_only)
        return {.body = json::serialize(*value), .content_type = "application/json"};
    if (const auto* text = value->if_string())
        return {.body = std::string(view(*text))};
    if (const auto* object = value->if_object())
        return {.body = listing(*object, options_.ec2)};
    return refusal(501, "this value is neither text nor a directory; ask for application/json");
}

}  // namespace masu::net
