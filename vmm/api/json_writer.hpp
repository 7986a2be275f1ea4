// Writes JSON text, one value after the other; commas and escapes are its business.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

namespace masu::api {

// The caller keeps begin and end in pairs. Bytes that are not UTF-8 come out as U+FFFD, so the text
// is valid JSON whatever a file is called.
class JsonWriter {
  public:
    JsonWriter& begin_object();
    JsonWriter& end_object();
    JsonWriter& begin_array();
    JsonWriter& end_array();
    JsonWriter& key(std::string_view name);

    JsonWriter& value(std::string_view text);
    JsonWriter& value(const char* text) { return value(std::string_view(text)); }
    JsonWriter& value(bool flag);
    JsonWriter& value(std::unsigned_integral auto number) {
        separate();
        text_ += std::to_string(number);
        return *this;
    }

    // A value that is JSON text already.
    JsonWriter& raw(std::string_view json) {
        separate();
        text_ += json;
        return *this;
    }

    template <class T>
    JsonWriter& field(std::string_view name, const T& content) {
        return key(name).value(content);
    }

    [[nodiscard]] const std::string& text() const noexcept { return text_; }

  private:
    void separate();
    void append_quoted(std::string_view text);
    std::string text_;
    bool comma_ = false;  // the next value needs a comma in front
};

}  // namespace masu::api
