#include "tools/masu/optional_members.hpp"

namespace masu::cli {

std::optional<std::string> text_of(const boost::json::object& object, std::string_view key) {
    const auto* value = object.if_contains(key);
    return value == nullptr ? std::nullopt
                            : std::optional<std::string>(std::string(value->as_string()));
}

std::optional<std::uint64_t> number_of(const boost::json::object& object, std::string_view key) {
    const auto* value = object.if_contains(key);
    return value == nullptr ? std::nullopt : std::optional(value->to_number<std::uint64_t>());
}

}  // namespace masu::cli
