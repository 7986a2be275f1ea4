// Lays JSON out.
#include "tools/masu/json_output.hpp"

#include <cstdio>

#include <boost/json.hpp>

namespace masu::cli {
namespace {

void pretty(std::string& out, const boost::json::value& value, const std::string& indent) {
    const auto deeper = indent + "  ";
    if (value.is_object() && !value.get_object().empty()) {
        out += "{\n";
        for (const auto* separator = ""; const auto& member : value.get_object()) {
            out += separator + deeper + boost::json::serialize(boost::json::string(member.key())) +
                   ": ";
            pretty(out, member.value(), deeper);
            separator = ",\n";
        }
        out += "\n" + indent + "}";
    } else if (value.is_array() && !value.get_array().empty()) {
        out += "[\n";
        for (const auto* separator = ""; const auto& element : value.get_array()) {
            out += separator + deeper;
            pretty(out, element, deeper);
            separator = ",\n";
        }
        out += "\n" + indent + "]";
    } else {
        out += boost::json::serialize(value);
    }
}

}  // namespace

void print_json(const boost::json::value& value) {
    std::string text;
    pretty(text, value, "");
    text += "\n";
    std::fwrite(text.data(), 1, text.size(), stdout);
}

std::string plain_text(const boost::json::value& value) {
    return value.is_string() ? std::string(value.get_string()) : boost::json::serialize(value);
}

}  // namespace masu::cli
