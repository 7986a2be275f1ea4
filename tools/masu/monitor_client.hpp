// The monitor's control socket, seen from the command line: one HTTP request, one answer.
#pragma once

#include <string>
#include <string_view>

#include <boost/json/value.hpp>

#include "base/result.hpp"

namespace masu::cli {

// Each call makes a connection of its own. Blocking, bounded by the timeout; any thread.
class MonitorClient {
  public:
    // `name` names the VM in errors.
    MonitorClient(std::string socket, std::string name)
        : socket_(std::move(socket)), name_(std::move(name)) {}

    // The default for calls that a healthy monitor answers at once, on a machine that may be busy.
    static constexpr int quick_ms = 30'000;

    // The monitor's refusal (its fault_message) comes back as the error's message, word for word.
    [[nodiscard]] Result<boost::json::value> get(std::string_view path,
                                                 int timeout_ms = quick_ms) const;
    [[nodiscard]] Result<> put(std::string_view path, const boost::json::value& body,
                               int timeout_ms = quick_ms) const;
    [[nodiscard]] Result<> patch(std::string_view path, const boost::json::value& body,
                                 int timeout_ms = quick_ms) const;
    // PUT /actions
    [[nodiscard]] Result<> action(std::string_view type, int timeout_ms = quick_ms) const;

  private:
    [[nodiscard]] Result<boost::json::value> call(std::string_view method, std::string_view path,
                                                  const std::string& body, int timeout_ms) const;

    std::string socket_;
    std::string name_;
};

}  // namespace masu::cli
