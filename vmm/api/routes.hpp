// From an HTTP request to an action, and from what came of it to an HTTP reply. Pure functions; no
// socket and no machine.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "vmm/vmm_action.hpp"

namespace masu::api {

struct HttpRequest {
    std::string_view method;  // GET, PUT, PATCH, DELETE
    std::string_view target;  // a path, or http://host/path
    std::string_view body;
};

struct HttpReply {
    unsigned status = 204;
    std::string body;  // JSON; none with 204
};

// What the request asks for. An error is a sentence for the client (400, fault_message).
[[nodiscard]] Result<VmmAction> route(const HttpRequest& request);

// 204 without a body for Done, 200 with JSON for what was read, 400 with fault_message.
[[nodiscard]] HttpReply to_reply(const Result<VmmReply>& outcome);

// {"KEY": "TEXT"}: the body of an error.
[[nodiscard]] std::string error_body(std::string_view key, std::string_view text);

}  // namespace masu::api
