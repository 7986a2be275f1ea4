// JSON for programs and people alike.
#pragma once

#include <boost/json/value.hpp>

namespace masu::cli {

// On standard output: two spaces a level, and a newline at the end.
void print_json(const boost::json::value& value);

// A JSON value as a person wants to read it: text without its quotes.
[[nodiscard]] std::string plain_text(const boost::json::value& value);

}  // namespace masu::cli
