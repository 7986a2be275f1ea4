// Reads and writes the JSON of a VM's folder.
#include "tools/masu/vm_record.hpp"

#include <boost/json.hpp>

namespace masu::cli {
namespace {

std::string text_at(const boost::json::object& object, std::string_view key) {
    return std::string(object.at(key).as_string());
}

std::vector<std::string> texts_at(const boost::json::object& object, std::string_view key) {
    std::vector<std::string> texts;
    if (const auto* list = object.if_contains(key))
        for (const auto& text : list->as_array())
            texts.emplace_back(text.as_string());
    return texts;
}

// The monitor may write a time as text or as a number.
std::string scalar_at(const boost::json::object& object, std::string_view key) {
    const auto* value = object.if_contains(key);
    if (value == nullptr || value->is_null())
        return {};
    return value->is_string() ? std::string(value->as_string()) : boost::json::serialize(*value);
}

PublishedPort port_from(const boost::json::object& object) {
    return {.host_address = text_at(object, "host_address"),
            .host = object.at("host").to_number<std::uint16_t>(),
            .guest = object.at("guest").to_number<std::uint16_t>(),
            .udp = text_at(object, "protocol") == "udp"};
}

VmRecord record_from(const boost::json::object& object) {
    VmRecord record;
    record.name = text_at(object, "name");
    record.id = text_at(object, "id");
    record.created = object.at("created").to_number<std::int64_t>();
    record.pid = object.at("pid").to_number<pid_t>();
    record.monitor = text_at(object, "monitor");
    record.socket_folder = text_at(object, "socket_folder");
    record.type = text_at(object, "type");
    record.cpus = object.at("cpus").to_number<unsigned>();
    record.memory_mib = object.at("memory_mib").to_number<std::uint64_t>();
    record.kernel = text_at(object, "kernel");
    if (const auto* initrd = object.if_contains("initrd"))
        record.initrd = std::string(initrd->as_string());
    record.boot_args = text_at(object, "boot_args");
    record.image = scalar_at(object, "image");
    for (const auto& disk : object.at("disks").as_array())
        record.disks.push_back(disk_from_json(disk.as_object()));
    if (const auto* nets = object.if_contains("nets"))
        for (const auto& net : nets->as_array())
            record.nets.push_back(net_from_json(net.as_object()));
    if (const auto* ports = object.if_contains("ports"))
        for (const auto& port : ports->as_array())
            record.ports.push_back(port_from(port.as_object()));
    record.security_groups = texts_at(object, "security_groups");
    if (const auto* firewall = object.if_contains("firewall"))
        record.firewall = firewall_settings_from_json(firewall->as_object());
    record.account_id = scalar_at(object, "account_id");
    if (const auto* vsock = object.if_contains("vsock"))
        record.vsock = vsock_from_json(vsock->as_object());
    record.transport = text_at(object, "transport");
    record.reboot = object.at("reboot").as_bool();
    record.remove = object.at("remove").as_bool();
    record.boot_timer = object.at("boot_timer").as_bool();
    if (const auto* jail = object.if_contains("jailed"))
        record.jail = jail->as_bool();
    record.jail_read = texts_at(object, "jail_read");
    record.jail_write = texts_at(object, "jail_write");
    record.stop_timeout = object.at("stop_timeout").to_number<unsigned>();
    if (const auto* snapshot = object.if_contains("snapshot"))
        record.snapshot = std::string(snapshot->as_string());
    return record;
}

}  // namespace

std::string instance_id_of(const VmRecord& record) {
    return fmt::format("i-0{}", record.id);
}

boost::json::object to_json(const VmRecord& record) {
    boost::json::array disks;
    for (const auto& disk : record.disks)
        disks.push_back(to_json(disk));
    boost::json::array nets;
    for (const auto& net : record.nets)
        nets.push_back(to_json(net));
    boost::json::array ports;
    for (const auto& port : record.ports)
        ports.push_back(boost::json::object{{"host_address", port.host_address},
                                            {"host", port.host},
                                            {"guest", port.guest},
                                            {"protocol", port.udp ? "udp" : "tcp"}});
    boost::json::object object{{"name", record.name},
                               {"id", record.id},
                               {"created", record.created},
                               {"pid", record.pid},
                               {"monitor", record.monitor},
                               {"socket_folder", record.socket_folder},
                               {"type", record.type},
                               {"cpus", record.cpus},
                               {"memory_mib", record.memory_mib},
                               {"kernel", record.kernel},
                               {"boot_args", record.boot_args},
                               {"disks", std::move(disks)},
                               {"nets", std::move(nets)},
                               {"ports", std::move(ports)},
                               {"transport", record.transport},
                               {"reboot", record.reboot},
                               {"remove", record.remove},
                               {"boot_timer", record.boot_timer},
                               {"stop_timeout", record.stop_timeout}};
    object["security_groups"] =
        boost::json::array(record.security_groups.begin(), record.security_groups.end());
    object["firewall"] = to_json(record.firewall);
    if (record.vsock)
        object["vsock"] = to_json(*record.vsock);
    if (record.jail) {
        object["jailed"] = true;
        object["jail_read"] = boost::json::array(record.jail_read.begin(), record.jail_read.end());
        object["jail_write"] =
            boost::json::array(record.jail_write.begin(), record.jail_write.end());
    }
    if (record.initrd)
        object["initrd"] = *record.initrd;
    if (!record.account_id.empty())
        object["account_id"] = record.account_id;
    if (!record.image.empty())
        object["image"] = record.image;
    if (!record.snapshot.empty())
        object["snapshot"] = record.snapshot;
    return object;
}

Result<VmRecord> parse_vm_record(const std::string& text) {
    try {
        return record_from(boost::json::parse(text).as_object());
    } catch (const std::exception& error) {
        return fail("is not a VM record of this version: {}", error.what());
    }
}

Result<ExitRecord> parse_exit_record(const std::string& text) {
    try {
        const auto value = boost::json::parse(text);
        const auto& object = value.as_object();
        return ExitRecord{object.at("status").to_number<int>(), scalar_at(object, "kind"),
                          scalar_at(object, "reason"), scalar_at(object, "wall_time")};
    } catch (const std::exception& error) {
        return fail("is not an exit record: {}", error.what());
    }
}

}  // namespace masu::cli
