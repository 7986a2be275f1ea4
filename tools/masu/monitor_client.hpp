// The monitor's control socket, seen from the command line: one HTTP request, one answer.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <boost/json/value.hpp>

#include "base/result.hpp"

namespace masu::cli {

// Each call makes a connection of its own. Blocking, bounded by the timeout; any thread.
class MonitorClient {
  public:
    // For calls that a healthy monitor answers at once, on a host that may be busy.
    static constexpr int quick_ms = 30'000;

    // `name` names the VM in errors. `timeout_ms` holds for calls that name none.
    MonitorClient(std::string socket, std::string name, int timeout_ms = quick_ms)
        : socket_(std::move(socket)), name_(std::move(name)), timeout_ms_(timeout_ms) {}

    // The monitor's refusal (its fault_message) comes back as the error's message, word for word.
    [[nodiscard]] Result<boost::json::value> get(std::string_view path,
                                                 std::optional<int> timeout_ms = {}) const;
    [[nodiscard]] Result<> put(std::string_view path, const boost::json::value& body,
                               std::optional<int> timeout_ms = {}) const;
    [[nodiscard]] Result<> patch(std::string_view path, const boost::json::value& body,
                                 std::optional<int> timeout_ms = {}) const;
    // PUT /actions
    [[nodiscard]] Result<> action(std::string_view type, std::optional<int> timeout_ms = {}) const;

  private:
    [[nodiscard]] Result<boost::json::value> call(std::string_view method, std::string_view path,
                                                  const std::string& body,
                                                  std::optional<int> timeout_ms) const;

    std::string socket_;
    std::string name_;
    int timeout_ms_;
};

}  // namespace masu::cli
