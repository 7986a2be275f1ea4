#include "vmm/pool/settings.hpp"

#include <sys/random.h>

#include "vmm/api/bodies.hpp"
#include "vmm/api/json_writer.hpp"

namespace masu::pool {
namespace {

// The inside of a JSON string.
std::string escaped(std::string_view text) {
    const auto quoted = api::JsonWriter().value(text).text();
    return quoted.substr(1, quoted.size() - 2);
}

void replace_all(std::string& text, std::string_view what, std::string_view with) {
    for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + with.size()))
        text.replace(at, what.size(), with);
}

}  // namespace

Result<std::string> load_template(std::string_view body) {
    const auto object = TRY(api::JsonObject::parse(body, "load"));
    if (object.has("resume_vm"))
        return fail("load: resume_vm is the pool's to say; leave it out");
    std::string added;
    if (!object.has("identity"))
        added += R"("identity":{"instance_id":"{instance_id}","hostname":"{id}"},)";
    if (!object.has("overlay_folder") && object.has("directory"))
        added += R"("overlay_folder":"{folder}",)";
    std::string text(body.substr(body.find('{')));
    text.insert(1, added);
    // As a monitor will read it, so that mistakes are told at once.
    auto reader = TRY(api::JsonObject::parse(text, "load"));
    TRY(api::read_snapshot_load(reader));
    return text;
}

// A template is never empty: it names a snapshot.
std::string load_body(std::string_view load, bool resume) {
    return fmt::format("{{\"resume_vm\":{},{}", resume, load.substr(1));
}

// A word in braces cannot be part of a JSON text outside its strings.
std::string with_names(std::string_view text, const VmNames& names) {
    std::string result(text);
    replace_all(result, "{id}", names.id);
    replace_all(result, "{n}", std::to_string(names.number));
    replace_all(result, "{instance_id}", names.instance_id);
    replace_all(result, "{folder}", escaped(names.folder));
    return result;
}

Result<std::string> random_instance_id() {
    std::uint64_t bits = 0;
    if (::getrandom(&bits, sizeof bits, 0) != static_cast<ssize_t>(sizeof bits))
        return fail_errno(errno, "the host gives no random bytes");
    return fmt::format("i-0{:016x}", bits);
}

}  // namespace masu::pool
