#include "tools/masu/vsock_option.hpp"

#include <charconv>
#include <vector>

#include "devices/vsock/packet.hpp"
#include "tools/masu/disk_option.hpp"
#include "tools/masu/host_file.hpp"

namespace masu::cli {
namespace {

Result<std::uint32_t> parse_cid(std::string_view text) {
    if (text == "auto")
        return vsock::first_guest_cid;
    std::uint32_t cid = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), cid);
    if (error != std::errc() || end != text.data() + text.size() || cid < vsock::first_guest_cid ||
        cid == vsock::any_cid)
        return fail("--vsock: {} is not a CID for a guest: write {} to {}, or auto", text,
                    vsock::first_guest_cid, vsock::any_cid - 1);
    return cid;
}

}  // namespace

Result<VsockOption> parse_vsock_option(std::string_view text) {
    const auto parts = split_at_single_commas(text);
    VsockOption vsock{.cid = TRY(parse_cid(parts.front())), .path = {}};
    for (std::size_t i = 1; i < parts.size(); ++i) {
        constexpr std::string_view key = "uds=";
        if (!parts[i].starts_with(key) || parts[i].size() == key.size())
            return fail("--vsock: unknown setting \"{}\"; known is uds=PATH", parts[i]);
        vsock.path = absolute_path(parts[i].substr(key.size()));
    }
    return vsock;
}

boost::json::object vsock_request(const VsockOption& vsock) {
    return {{"guest_cid", vsock.cid}, {"uds_path", vsock.path}};
}

boost::json::object to_json(const VsockOption& vsock) {
    return {{"cid", vsock.cid}, {"uds_path", vsock.path}};
}

VsockOption vsock_from_json(const boost::json::object& object) {
    return {.cid = object.at("cid").to_number<std::uint32_t>(),
            .path = std::string(object.at("uds_path").as_string())};
}

}  // namespace masu::cli
