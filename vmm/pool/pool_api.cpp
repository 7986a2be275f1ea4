#include "vmm/pool/pool_api.hpp"

#include <array>

#include "vmm/api/json_reader.hpp"
#include "vmm/api/json_writer.hpp"

namespace masu::pool {
namespace {

constexpr std::uint64_t most_at_once = 1024;
constexpr std::uint64_t most_vms = 65536;
constexpr std::uint64_t longest_delay_ms = 60'000;
constexpr std::string_view vms_path = "/pool/vms/";

// The bodies are for the monitor to understand.
Result<std::vector<Request>> read_requests(api::JsonObject& body, std::string_view key) {
    std::vector<Request> requests;
    for (auto& entry : body.objects(key)) {
        Request request{.method = entry.required_string("method"),
                        .path = entry.required_string("path"),
                        .body = entry.object_text("body").value_or("")};
        if (request.method != "PUT" && request.method != "PATCH")
            entry.complain("method", "must be PUT or PATCH");
        if (!request.path.starts_with('/') ||
            request.path.find_first_of(" \r\n\t") != std::string::npos)
            entry.complain("path", "must be a path of the VM's control socket, as /mmds");
        TRY(entry.finish());
        requests.push_back(std::move(request));
    }
    return requests;
}

Result<PoolSettings> read_settings(std::string_view text) {
    static constexpr std::array<std::pair<std::string_view, Level>, 2> levels{
        {{"forked", Level::Forked}, {"loaded", Level::Loaded}}};
    auto body = TRY(api::JsonObject::parse(text, "pool"));
    PoolSettings settings;
    settings.size = static_cast<unsigned>(body.required_integer("size", max_pool_size));
    settings.level = body.choice<Level>("level", levels).value_or(Level::Loaded);
    settings.folder = body.required_string("folder");
    const auto load = body.object_text("load");
    if (!load)
        body.complain("load", "is missing: the body of each VM's PUT /snapshot/load");
    settings.load = load.value_or("");
    settings.setup = TRY(read_requests(body, "setup"));
    settings.most_vms =
        static_cast<unsigned>(body.integer("most_vms", most_vms).value_or(settings.most_vms));
    if (const auto delay = body.integer("refill_delay_ms", longest_delay_ms))
        settings.refill_delay = *delay * 1'000'000;
    TRY(body.finish());
    return settings;
}

void write_vm(api::JsonWriter& json, const PooledVm& vm) {
    json.begin_object()
        .field("id", vm.names.id)
        .field("state", to_string(vm.state))
        .field("number", vm.names.number)
        .field("pid", static_cast<std::uint64_t>(vm.pid))
        .field("instance_id", vm.names.instance_id)
        .field("api_socket", vm.api_socket())
        .end_object();
}

api::HttpReply refusal(const std::string& reason) {
    return {400, api::error_body("fault_message", reason)};
}

// The VMs of one PUT /pool/launch, and where to tell of them when the last has come.
struct Batch {
    api::HttpAnswer answer;
    std::size_t wanted = 0;
    std::vector<PooledVm> vms;
    std::vector<std::string> failures;

    void take(Result<PooledVm> vm) {
        if (vm)
            vms.push_back(*std::move(vm));
        else
            failures.push_back(std::move(vm).error().message);
        if (vms.size() + failures.size() == wanted)
            tell();
    }
    void tell() const {
        if (vms.empty())
            return answer(refusal(failures.front()));
        api::JsonWriter json;
        json.begin_object().key("vms").begin_array();
        for (const auto& vm : vms)
            write_vm(json, vm);
        json.end_array().key("failures").begin_array();
        for (const auto& failure : failures)
            json.value(failure);
        json.end_array().end_object();
        answer({200, json.text()});
    }
};

}  // namespace

Result<> PoolApi::create(std::string_view body) {
    if (pool_)
        return fail("there is a pool already; a process has one: DELETE /pool ends both");
    auto settings = TRY(read_settings(body));
    settings.jail = jail_;
    pool_ = TRY(Pool::create(loop_, host_, std::move(settings), log_));
    return {};
}

void PoolApi::launch(std::string_view text, const api::HttpAnswer& answer) {
    const auto read = [&]() -> Result<std::pair<std::uint64_t, std::vector<Request>>> {
        auto body = TRY(api::JsonObject::parse(text.empty() ? "{}" : text, "launch"));
        const auto count = body.integer("count", most_at_once).value_or(1);
        if (count == 0)
            body.complain("count", "must be at least 1");
        auto requests = TRY(read_requests(body, "requests"));
        TRY(body.finish());
        return std::pair(count, std::move(requests));
    }();
    if (!read)
        return answer(refusal(read.error().message));
    const auto& [count, requests] = *read;
    auto batch = std::make_shared<Batch>(answer, count);
    for (std::uint64_t i = 0; i < count; ++i)
        pool_->launch(requests, [batch](Result<PooledVm> vm) { batch->take(std::move(vm)); });
}

std::string PoolApi::describe() const {
    const auto& settings = pool_->settings();
    const auto counts = pool_->counts();
    api::JsonWriter json;
    json.begin_object()
        .field("size", settings.size)
        .field("level", settings.level == Level::Forked ? "forked" : "loaded")
        .field("folder", settings.folder)
        .field("ready", counts.ready)
        .field("preparing", counts.preparing)
        .field("running", counts.running)
        .field("ending", counts.ending)
        .field("waiting", counts.waiting)
        .field("launched", counts.launched)
        .field("lost", counts.lost);
    if (!pool_->last_error().empty())
        json.field("last_error", pool_->last_error());
    json.key("vms").begin_array();
    for (const auto& vm : pool_->vms())
        write_vm(json, vm);
    return json.end_array().end_object().text();
}

void PoolApi::handle(const api::HttpRequest& request, const api::HttpAnswer& answer) {
    const auto done = [&](const Result<>& outcome) {
        answer(outcome ? api::HttpReply{} : refusal(outcome.error().message));
    };
    const bool get = request.method == "GET";
    const bool put = request.method == "PUT";
    if (put && request.target == "/pool")
        return done(create(request.body));
    if (get && request.target == "/version")
        return answer(api::to_reply(VmmReply(VersionInfo{})));
    if (!request.target.starts_with("/pool"))
        return answer(refusal(fmt::format("there is no {} {} here: see PUT /pool", request.method,
                                          request.target.substr(0, 128))));
    if (!pool_)
        return answer(refusal("there is no pool yet: PUT /pool makes it"));
    if (get && request.target == "/pool")
        return answer({200, describe()});
    if (put && request.target == "/pool/launch")
        return launch(request.body, answer);
    if (request.method == "DELETE" && request.target == "/pool") {
        answer({});
        return end();
    }
    if (request.method == "DELETE" && request.target.starts_with(vms_path))
        return done(pool_->end_vm(std::string(request.target.substr(vms_path.size()))));
    answer(
        refusal(fmt::format("there is no {} {}", request.method, request.target.substr(0, 128))));
}

void PoolApi::end() {
    if (pool_)
        pool_->end(ended_);
    else
        ended_();
}

}  // namespace masu::pool
