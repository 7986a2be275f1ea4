// Base64: the RFC's own vectors, and what is refused.
#include "base/base64.hpp"

#include <doctest/doctest.h>

#include <utility>

namespace masu {

TEST_CASE("base64 both ways, as RFC 4648 shows it") {
    for (const auto& [bytes, text] :
         {std::pair("", ""), std::pair("f", "Zg=="), std::pair("fo", "Zm8="),
          std::pair("foo", "Zm9v"), std::pair("foob", "Zm9vYg=="), std::pair("fooba", "Zm9vYmE="),
          std::pair("foobar", "Zm9vYmFy")}) {
        CHECK(encode_base64(bytes) == text);
        CHECK(decode_base64(text) == bytes);
    }
    std::string all;
    for (int i = 0; i < 256; ++i)
        all += static_cast<char>(i);
    CHECK(decode_base64(encode_base64(all)) == all);
    CHECK(decode_base64("Zm9v\r\nYmFy\n") == "foobar");
    CHECK(decode_base64("Zm9vYg") == "foob");
    CHECK_FALSE(decode_base64("Z"));
    CHECK_FALSE(decode_base64("Zm9*"));
    CHECK_FALSE(decode_base64("Zg==Zg=="));
}

}  // namespace masu
