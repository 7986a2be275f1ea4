// The JSON reader on Boost.JSON. The only source that includes it.
#include "vmm/api/json_reader.hpp"

#include <algorithm>
#include <boost/json.hpp>

namespace masu::api {

namespace json = boost::json;

Result<JsonObject> JsonObject::parse(std::string_view text, std::string where) {
    json::error_code error;
    json::stream_parser parser;  // stops at depth 32
    std::size_t consumed = parser.write(text.data(), text.size(), error);
    if (!error)
        parser.finish(error);
    if (error) {
        consumed = std::min(consumed, text.size());
        const auto line = 1 + std::count(text.begin(), text.begin() + consumed, '\n');
        return fail("{}: not valid JSON at line {} (byte {}): {}", where, line, consumed,
                    error.message());
    }
    auto document = std::make_shared<const json::value>(parser.release());
    const auto* object = document->if_object();
    if (object == nullptr)
        return fail("{}: must be a JSON object", where);
    return JsonObject(std::move(document), *object, std::move(where));
}

const json::value* JsonObject::find(std::string_view key) {
    asked_.emplace_back(key);
    const auto* value = object_->if_contains(json::string_view(key.data(), key.size()));
    return value == nullptr || value->is_null() ? nullptr : value;
}

void JsonObject::complain(std::string_view key, std::string_view what) {
    if (!complaint_)
        complaint_ = fmt::format("{}: `{}` {}", where_, key, what);
}

std::optional<std::string> JsonObject::string(std::string_view key, std::size_t limit) {
    const auto* value = find(key);
    if (value == nullptr)
        return std::nullopt;
    const auto* text = value->if_string();
    if (text == nullptr) {
        complain(key, "must be a string");
        return std::nullopt;
    }
    if (text->size() > limit) {
        complain(key, fmt::format("is longer than {} bytes", limit));
        return std::nullopt;
    }
    // Paths and arguments end at their first NUL once they reach the kernel.
    if (text->find('\0') != json::string::npos) {
        complain(key, "holds a NUL character");
        return std::nullopt;
    }
    return std::string(text->data(), text->size());
}

std::optional<bool> JsonObject::boolean(std::string_view key) {
    const auto* value = find(key);
    if (value == nullptr)
        return std::nullopt;
    if (const auto* flag = value->if_bool())
        return *flag;
    complain(key, "must be true or false");
    return std::nullopt;
}

std::optional<std::uint64_t> JsonObject::integer(std::string_view key, std::uint64_t limit) {
    const auto* value = find(key);
    if (value == nullptr)
        return std::nullopt;
    std::optional<std::uint64_t> number;
    if (const auto* big = value->if_uint64())
        number = *big;
    else if (const auto* plain = value->if_int64(); plain != nullptr && *plain >= 0)
        number = static_cast<std::uint64_t>(*plain);
    if (!number) {
        complain(key, "must be a whole number, 0 or more");
        return std::nullopt;
    }
    if (*number > limit) {
        complain(key, fmt::format("is {}, but may be {} at most", *number, limit));
        return std::nullopt;
    }
    return number;
}

std::optional<JsonObject> JsonObject::object(std::string_view key) {
    const auto* value = find(key);
    if (value == nullptr)
        return std::nullopt;
    if (const auto* object = value->if_object())
        return JsonObject(document_, *object, fmt::format("{}.{}", where_, key));
    complain(key, "must be an object");
    return std::nullopt;
}

std::optional<std::string> JsonObject::object_text(std::string_view key) {
    const auto inner = object(key);
    return inner ? std::optional(json::serialize(*inner->object_)) : std::nullopt;
}

const json::array* JsonObject::list(std::string_view key) {
    const auto* value = find(key);
    if (value == nullptr)
        return nullptr;
    const auto* array = value->if_array();
    if (array == nullptr)
        complain(key, "must be a list");
    return array;
}

std::vector<JsonObject> JsonObject::objects(std::string_view key) {
    std::vector<JsonObject> result;
    const auto* array = list(key);
    if (array == nullptr)
        return result;
    for (std::size_t i = 0; i < array->size(); ++i) {
        const auto* object = (*array)[i].if_object();
        if (object == nullptr) {
            complain(key, fmt::format("must hold objects only, entry {} is none", i));
            return {};
        }
        result.push_back(JsonObject(document_, *object, fmt::format("{}.{}[{}]", where_, key, i)));
    }
    return result;
}

std::vector<std::string> JsonObject::strings(std::string_view key) {
    std::vector<std::string> result;
    const auto* array = list(key);
    if (array == nullptr)
        return result;
    for (const auto& entry : *array) {
        const auto* text = entry.if_string();
        if (text == nullptr || text->size() > max_string ||
            text->find('\0') != json::string::npos) {
            complain(key, "must hold strings only");
            return {};
        }
        result.emplace_back(text->data(), text->size());
    }
    return result;
}

std::vector<std::uint64_t> JsonObject::integers(std::string_view key, std::uint64_t limit) {
    std::vector<std::uint64_t> result;
    const auto* array = list(key);
    if (array == nullptr)
        return result;
    for (const auto& entry : *array) {
        json::error_code error;
        const auto number = entry.to_number<std::uint64_t>(error);
        if (error || number > limit) {
            complain(key, fmt::format("must hold whole numbers from 0 to {} only", limit));
            return {};
        }
        result.push_back(number);
    }
    return result;
}

std::map<std::string, std::string> JsonObject::string_map(std::string_view key) {
    std::map<std::string, std::string> result;
    const auto object = this->object(key);
    if (!object)
        return result;
    for (const auto& entry : *object->object_) {
        const auto* text = entry.value().if_string();
        if (text == nullptr || text->size() > max_string) {
            complain(key, "must hold strings only");
            return {};
        }
        result.emplace(std::string(entry.key().data(), entry.key().size()),
                       std::string(text->data(), text->size()));
    }
    return result;
}

std::string JsonObject::required_string(std::string_view key, std::size_t limit) {
    auto text = string(key, limit);
    if (!text)
        complain(key, "is missing");
    return std::move(text).value_or("");
}

bool JsonObject::required_boolean(std::string_view key) {
    const auto flag = boolean(key);
    if (!flag)
        complain(key, "is missing");
    return flag.value_or(false);
}

std::uint64_t JsonObject::required_integer(std::string_view key, std::uint64_t limit) {
    const auto number = integer(key, limit);
    if (!number)
        complain(key, "is missing");
    return number.value_or(0);
}

void JsonObject::expect_nothing(std::string_view key, std::string_view why) {
    const auto* value = find(key);
    if (value == nullptr || (value->is_array() && value->get_array().empty()) ||
        (value->is_object() && value->get_object().empty()))
        return;
    complain(key, why);
}

Result<> JsonObject::status() const {
    if (complaint_)
        return fail("{}", *complaint_);
    return {};
}

// A misspelt field is named before the one that is then missing: it is what the person looks for.
Result<> JsonObject::finish() const {
    for (const auto& entry : *object_) {
        const std::string_view key(entry.key().data(), entry.key().size());
        if (std::ranges::find(asked_, key) == asked_.end())
            return fail("{}: unknown field `{}`", where_, key.substr(0, 64));
    }
    return status();
}

bool JsonObject::has(std::string_view key) const {
    const auto* value = object_->if_contains(json::string_view(key.data(), key.size()));
    return value != nullptr && !value->is_null();
}

bool JsonObject::empty() const noexcept {
    return object_->empty();
}

}  // namespace masu::api
