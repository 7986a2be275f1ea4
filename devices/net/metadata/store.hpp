// The JSON document behind a metadata service.
#pragma once

#include <boost/json/value.hpp>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace masu::net {

// Loop thread. A refused change leaves the document as it was.
class MetadataStore {
  public:
    // `limit`: the largest document, in bytes of JSON text. What would be larger is refused, with
    // EFBIG for its Error::os_errno.
    explicit MetadataStore(std::size_t limit) : limit_(limit) {}

    [[nodiscard]] Result<> put(std::string_view text);
    // RFC 7396; refused before the first put().
    [[nodiscard]] Result<> patch(std::string_view text);
    void set(boost::json::value document) { document_ = std::move(document); }

    // "{}" while there is none.
    [[nodiscard]] std::string text() const;
    [[nodiscard]] const boost::json::value* document() const noexcept {
        return document_ ? &*document_ : nullptr;
    }

  private:
    [[nodiscard]] Result<> replace(boost::json::value document);
    std::size_t limit_;
    std::optional<boost::json::value> document_;
};

}  // namespace masu::net
