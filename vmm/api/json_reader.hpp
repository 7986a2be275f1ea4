// A strict reader of JSON objects: every field is asked for by name and type, and what nobody asked
// for is an error.
//
// Reading never stops half-way: a wrong field yields a default value and the first complaint is
// kept, so that a reader is a flat list of fields followed by one check of finish().
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.hpp"

namespace boost::json {
class array;
class object;
class value;
}  // namespace boost::json

namespace masu::api {

// One object of a document. Copies share the document; move it or pass it by reference, since the
// list of fields read belongs to the reader. Any thread, one at a time.
class JsonObject {
  public:
    static constexpr std::size_t max_string = 4096;

    // Parses a text that must be one object, with nothing after it. `where` names the text in
    // errors ("boot-source", "config file /etc/vm.json").
    [[nodiscard]] static Result<JsonObject> parse(std::string_view text, std::string where);

    // A field that is absent or null yields nothing, one of another type a complaint.
    [[nodiscard]] std::optional<std::string> string(std::string_view key,
                                                    std::size_t limit = max_string);
    [[nodiscard]] std::optional<bool> boolean(std::string_view key);
    [[nodiscard]] std::optional<std::uint64_t> integer(
        std::string_view key, std::uint64_t limit = std::numeric_limits<std::uint64_t>::max());
    [[nodiscard]] std::optional<JsonObject> object(std::string_view key);
    [[nodiscard]] std::vector<JsonObject> objects(std::string_view key);
    // An object for somebody else to read, as JSON text.
    [[nodiscard]] std::optional<std::string> object_text(std::string_view key);
    // Lists; nothing when absent.
    [[nodiscard]] std::vector<std::string> strings(std::string_view key);
    [[nodiscard]] std::vector<std::uint64_t> integers(std::string_view key, std::uint64_t limit);
    [[nodiscard]] std::map<std::string, std::string> string_map(std::string_view key);

    // The same, but absence is a complaint too.
    [[nodiscard]] std::string required_string(std::string_view key, std::size_t limit = max_string);
    [[nodiscard]] bool required_boolean(std::string_view key);
    [[nodiscard]] std::uint64_t required_integer(
        std::string_view key, std::uint64_t limit = std::numeric_limits<std::uint64_t>::max());

    // One of a closed list of words.
    template <class T>
    [[nodiscard]] std::optional<T> choice(std::string_view key,
                                          std::span<const std::pair<std::string_view, T>> words) {
        const auto text = string(key);
        if (!text)
            return std::nullopt;
        std::string known;
        for (const auto& [word, value] : words) {
            if (word == *text)
                return value;
            known += (known.empty() ? "" : ", ") + std::string(word);
        }
        complain(key, "is '" + *text + "', but must be one of: " + known);
        return std::nullopt;
    }

    // For a field that other monitors know and this one does not: null, an empty list and an empty
    // object pass (they ask for nothing), anything else is a complaint.
    void expect_nothing(std::string_view key, std::string_view why);

    void complain(std::string_view key, std::string_view what);

    // The first complaint so far.
    [[nodiscard]] Result<> status() const;
    // Every field must have been asked for, and then status().
    [[nodiscard]] Result<> finish() const;

    [[nodiscard]] const std::string& where() const noexcept { return where_; }
    // Fields that are present and not null.
    [[nodiscard]] bool has(std::string_view key) const;
    [[nodiscard]] bool empty() const noexcept;

  private:
    JsonObject(std::shared_ptr<const boost::json::value> document,
               const boost::json::object& object, std::string where)
        : document_(std::move(document)), object_(&object), where_(std::move(where)) {}
    const boost::json::value* find(std::string_view key);
    const boost::json::array* list(std::string_view key);  // complains where it is none

    std::shared_ptr<const boost::json::value> document_;
    const boost::json::object* object_;
    std::string where_;
    std::vector<std::string> asked_;
    std::optional<std::string> complaint_;
};

}  // namespace masu::api
