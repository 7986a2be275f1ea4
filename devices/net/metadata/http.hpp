// The little HTTP that a metadata service speaks with its guest.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace masu::net {

// What of a request matters to the service. Header names are compared without regard to case.
struct MetadataRequest {
    std::string method;
    std::string path;  // without query, "//" and "http://host"; begins with '/'
    std::optional<std::string> token;
    std::optional<std::string> token_ttl;
    bool aws_ttl_header = false;  // which of the two names the TTL came under
    bool forwarded = false;       // X-Forwarded-For is there
    bool wants_json = false;      // Accept: application/json
    bool keep_alive = true;
};

struct MetadataResponse {
    unsigned status = 200;
    std::string body;
    std::string content_type = "text/plain";
    std::string extra_headers;  // whole lines, each with its CRLF
};

struct ParsedRequest {
    enum class State { Incomplete, Bad, Complete } state = State::Incomplete;
    std::size_t consumed = 0;  // bytes of the request, body included; when Complete
    MetadataRequest request;
};

// Reads the request that `received` begins with. Headers of more than max_header_bytes, bodies of
// more than max_body_bytes and anything malformed are Bad.
inline constexpr std::size_t max_header_bytes_of_request = 8192;
inline constexpr std::size_t max_body_bytes_of_request = 1024;
[[nodiscard]] ParsedRequest parse_metadata_request(std::string_view received);

// `head`: without the body, for HEAD.
[[nodiscard]] std::string format_metadata_response(const MetadataResponse& response,
                                                   bool keep_alive, bool head);

}  // namespace masu::net
