// Reading and writing firewall settings.
#include "tools/masu/firewall_settings.hpp"

#include <CLI/App.hpp>
#include <boost/json.hpp>

#include "tools/masu/commands.hpp"

namespace masu::cli {

boost::json::object to_json(const FirewallSettings& settings) {
    return {{"connection_tracking",
             boost::json::object{{"tcp_established_timeout", settings.timeouts.tcp_established},
                                 {"udp_stream_timeout", settings.timeouts.udp_stream},
                                 {"udp_timeout", settings.timeouts.udp}}},
            {"icmp_errors", settings.related_icmp_errors ? "related" : "strict"},
            {"private_name_answers", settings.private_name_answers}};
}

FirewallSettings firewall_settings_from_json(const boost::json::object& object) {
    const auto& tracking = object.at("connection_tracking").as_object();
    const auto seconds = [&](const char* key) {
        return tracking.at(key).to_number<std::uint32_t>();
    };
    return {.timeouts = {.tcp_established = seconds("tcp_established_timeout"),
                         .udp_stream = seconds("udp_stream_timeout"),
                         .udp = seconds("udp_timeout")},
            .related_icmp_errors = object.at("icmp_errors").as_string() == "related",
            .private_name_answers = object.at("private_name_answers").as_bool()};
}

void add_firewall_options(CLI::App& command, FirewallOptions& options) {
    const auto seconds = [&command](const char* name, std::optional<std::uint32_t>& value,
                                    std::uint32_t least, std::uint32_t most, const char* text) {
        command.add_option(name, value, text)->type_name("SECONDS")->check(CLI::Range(least, most));
    };
    seconds("--tcp-established-timeout", options.tcp_established, 60, 432'000,
            "After how long idling an established TCP flow is forgotten: 60 to 432000 (default "
            "432000)");
    seconds("--udp-stream-timeout", options.udp_stream, 60, 180,
            "The same of a UDP flow of more than one request and reply: 60 to 180 (default 180)");
    seconds("--udp-timeout", options.udp, 30, 60,
            "The same of any other UDP flow: 30 to 60 (default 30)");
    add_choice(command, "--icmp-errors", options.icmp_errors, {"related", "strict"},
               "ICMP errors about a live flow pass without a rule (related, the default), or need "
               "one as all else does (strict)");
    add_choice(command, "--private-name-answers", options.private_name_answers, {"on", "off"},
               "Whether a rule for a DNS name also admits private addresses (default off)");
}

void apply(const FirewallOptions& options, FirewallSettings& settings) {
    auto& timeouts = settings.timeouts;
    timeouts.tcp_established = options.tcp_established.value_or(timeouts.tcp_established);
    timeouts.udp_stream = options.udp_stream.value_or(timeouts.udp_stream);
    timeouts.udp = options.udp.value_or(timeouts.udp);
    if (!options.icmp_errors.empty())
        settings.related_icmp_errors = options.icmp_errors == "related";
    if (!options.private_name_answers.empty())
        settings.private_name_answers = options.private_name_answers == "on";
}

}  // namespace masu::cli
