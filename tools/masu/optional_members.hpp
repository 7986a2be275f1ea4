// Members that an object of our own files has or has not.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace masu::cli {

// Both throw what Boost.JSON throws where the member is of another kind: whoever reads a file
// catches it.
[[nodiscard]] std::optional<std::string> text_of(const boost::json::object& object,
                                                 std::string_view key);
[[nodiscard]] std::optional<std::uint64_t> number_of(const boost::json::object& object,
                                                     std::string_view key);

}  // namespace masu::cli
