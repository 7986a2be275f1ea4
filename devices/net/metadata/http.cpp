// Reading requests with Boost.Beast's parser; writing responses by hand.
#include "devices/net/metadata/http.hpp"

#include <fmt/format.h>

#include <boost/asio/buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

namespace masu::net {
namespace {

namespace http = boost::beast::http;
using Parser = http::request_parser<http::string_body>;

std::string_view view(boost::beast::string_view text) {
    return {text.data(), text.size()};
}

std::optional<std::string> header(const Parser& parser, std::string_view name) {
    const auto found = parser.get().find(boost::beast::string_view(name.data(), name.size()));
    if (found == parser.get().end())
        return std::nullopt;
    return std::string(view(found->value()));
}

std::string path_of(std::string_view target) {
    constexpr std::string_view scheme = "http://";
    if (target.starts_with(scheme)) {
        const auto slash = target.find('/', scheme.size());
        target = slash == std::string_view::npos ? "/" : target.substr(slash);
    }
    target = target.substr(0, target.find_first_of("?#"));
    std::string path = "/";
    for (const char c : target)
        if (c != '/' || path.back() != '/')
            path += c;
    return path;
}

std::string_view reason(unsigned status) {
    switch (status) {
        case 200:
            return "OK";
        case 400:
            return "Bad Request";
        case 401:
            return "Unauthorized";
        case 403:
            return "Forbidden";
        case 404:
            return "Not Found";
        case 405:
            return "Method Not Allowed";
        case 501:
            return "Not Implemented";
        default:
            return "";
    }
}

MetadataRequest take(const Parser& parser) {
    MetadataRequest request;
    request.method = view(parser.get().method_string());
    request.path = path_of(view(parser.get().target()));
    request.token = header(parser, "X-aws-ec2-metadata-token");
    if (!request.token)
        request.token = header(parser, "X-metadata-token");
    request.token_ttl = header(parser, "X-aws-ec2-metadata-token-ttl-seconds");
    request.aws_ttl_header = request.token_ttl.has_value();
    if (!request.token_ttl)
        request.token_ttl = header(parser, "X-metadata-token-ttl-seconds");
    request.forwarded = header(parser, "X-Forwarded-For").has_value();
    request.wants_json =
        header(parser, "Accept").value_or("").find("application/json") != std::string::npos;
    request.keep_alive = parser.get().keep_alive();
    return request;
}

}  // namespace

ParsedRequest parse_metadata_request(std::string_view received) {
    // Most calls come before the headers are whole; Beast would begin from scratch each time.
    if (received.size() <= max_header_bytes_of_request &&
        received.find("\r\n\r\n") == std::string_view::npos)
        return {};
    Parser parser;
    parser.header_limit(max_header_bytes_of_request);
    parser.body_limit(max_body_bytes_of_request);
    parser.eager(true);
    boost::beast::error_code error;
    const auto consumed =
        parser.put(boost::asio::const_buffer(received.data(), received.size()), error);
    if (error == http::error::need_more)
        return {};
    if (error)
        return {.state = ParsedRequest::State::Bad};
    if (!parser.is_done())
        return {};
    return {.state = ParsedRequest::State::Complete, .consumed = consumed, .request = take(parser)};
}

std::string format_metadata_response(const MetadataResponse& response, bool keep_alive, bool head) {
    auto text = fmt::format(
        "HTTP/1.1 {} {}\r\nServer: Masu\r\nContent-Type: {}\r\nContent-Length: {}\r\n"
        "Connection: {}\r\n{}\r\n",
        response.status, reason(response.status), response.content_type, response.body.size(),
        keep_alive ? "keep-alive" : "close", response.extra_headers);
    if (!head)
        text += response.body;
    return text;
}

}  // namespace masu::net
