// Rule-set documents of any content: refused in one sentence, or compiled.
#include <cstdint>
#include <string_view>

#include "devices/net/firewall/compiled_rules.hpp"
#include "tests/fuzz/input.hpp"
#include "vmm/api/rule_set_body.hpp"

using namespace masu;
using masu::fuzz::require;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string text(data, data + size);
    auto body = api::JsonObject::parse(text, "fuzz");
    if (!body)
        return 0;
    const auto set = api::read_rule_set(*body);
    if (!set) {
        require(!set.error().message.empty());
        return 0;
    }
    const auto compiled = net::compile(set->rules, set->members);
    if (compiled)
        require((*compiled)->rules().size() == set->rules.rules.size());
    return 0;
}
