// Making ids, checking texts.
#include "tools/masu/ec2_names.hpp"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>

namespace masu::cli {
namespace {

constexpr std::size_t max_text = 255;

bool is_ec2_character(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view(" ._-:/()#,@[]+=&;{}!$*").contains(c);
}

}  // namespace

Result<std::string> new_ec2_id(std::string_view kind) {
    std::uint64_t value = 0;
    if (::getrandom(&value, sizeof value, 0) != sizeof value)
        return fail_errno(errno, "cannot get random bytes");
    return fmt::format("{}-0{:016x}", kind, value);
}

Result<> check_ec2_text(std::string_view what, std::string_view text) {
    if (text.size() > max_text || !std::ranges::all_of(text, is_ec2_character))
        return fail(
            "InvalidParameterValue: the {} may have {} characters at most, of a-z, A-Z, "
            "0-9, blanks and ._-:/()#,@[]+=&;{{}}!$*",
            what, max_text);
    return {};
}

}  // namespace masu::cli
