#include "vmm/pool/reply_parser.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>

namespace masu::pool {
namespace {

constexpr std::size_t max_head = 8192;
constexpr std::string_view version = "HTTP/1.1 ";

std::optional<std::size_t> number(std::string_view text, std::size_t largest) {
    std::size_t value = 0;
    const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || rest != text.data() + text.size() || value > largest)
        return std::nullopt;
    return value;
}

bool same_word(std::string_view a, std::string_view b) {
    return std::ranges::equal(
        a, b, [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

// RFC 9112, section 6: without the field there is no body, as in 204. Only the last one counts.
Result<std::size_t> body_size(std::string_view fields) {
    std::size_t size = 0;
    while (!fields.empty()) {
        const auto end = std::min(fields.find("\r\n"), fields.size());
        const auto line = fields.substr(0, end);
        fields.remove_prefix(std::min(end + 2, fields.size()));
        const auto colon = line.find(':');
        if (colon == std::string_view::npos)
            return fail("a worker's reply has a field without a colon");
        if (same_word(line.substr(0, colon), "transfer-encoding"))
            return fail("a worker's reply comes in chunks");
        if (!same_word(line.substr(0, colon), "content-length"))
            continue;
        auto value = line.substr(colon + 1);
        value.remove_prefix(std::min(value.find_first_not_of(' '), value.size()));
        const auto given = number(value, max_reply_body);
        if (!given)
            return fail("a worker's reply has no valid Content-Length");
        size = *given;
    }
    return size;
}

}  // namespace

Result<std::optional<Reply>> take_reply(std::string& input) {
    const auto head_end = input.find("\r\n\r\n");
    if (head_end == std::string::npos) {
        if (input.size() > max_head)
            return fail("a worker's reply has a head of more than {} bytes", max_head);
        return std::optional<Reply>();
    }
    const std::string_view head(input.data(), head_end);
    const auto line = head.substr(0, std::min(head.find("\r\n"), head.size()));
    if (head.size() > max_head || !line.starts_with(version) || line.size() < version.size() + 3)
        return fail("a worker's reply is not HTTP");
    const auto status = number(line.substr(version.size(), 3), 599);
    if (!status || *status < 200)
        return fail("a worker's reply has no valid status");
    const auto size = TRY(body_size(head.substr(std::min(line.size() + 2, head.size()))));
    const auto begin = head_end + 4;
    if (input.size() - begin < size)
        return std::optional<Reply>();
    Reply reply{.status = static_cast<unsigned>(*status), .body = input.substr(begin, size)};
    input.erase(0, begin + size);
    return std::optional(std::move(reply));
}

}  // namespace masu::pool
