// A pool's control socket: from HTTP requests to calls of a Pool, and back.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/event_loop.hpp"
#include "base/log.hpp"
#include "vmm/api/http_connection.hpp"
#include "vmm/pool/pool.hpp"

namespace masu::pool {

// GET /pool, PUT /pool, PUT /pool/launch, DELETE /pool/vms/ID and DELETE /pool. Loop thread.
class PoolApi {
  public:
    // `ended` is called when DELETE /pool has ended everything. `jail` is PoolSettings::jail.
    PoolApi(EventLoop& loop, WorkerHost& host, Log log, std::function<void()> ended,
            jail::Options jail)
        : loop_(loop),
          host_(host),
          log_(std::move(log)),
          ended_(std::move(ended)),
          jail_(std::move(jail)) {}

    void handle(const api::HttpRequest& request, const api::HttpAnswer& answer);
    // As DELETE /pool. `ended` is called at once where there is no pool.
    void end();

  private:
    [[nodiscard]] Result<> create(std::string_view body);
    void launch(std::string_view body, const api::HttpAnswer& answer);
    [[nodiscard]] std::string describe() const;

    EventLoop& loop_;
    WorkerHost& host_;
    Log log_;
    std::function<void()> ended_;
    jail::Options jail_;
    std::unique_ptr<Pool> pool_;
};

}  // namespace masu::pool
