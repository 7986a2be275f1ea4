// The monitor's services: frames of a hostile guest, up to DHCP and DHCPv6 options, TCP segments
// and HTTP.
// Every answer must be a packet that parses, and what waits must stay bounded.
#include <cstdint>

#include "devices/net/metadata/ec2_tree.hpp"
#include "devices/net/metadata/service.hpp"
#include "devices/net/services/dhcpv6.hpp"
#include "devices/net/services/read_packet.hpp"
#include "devices/net/services/services.hpp"
#include "tests/fuzz/input.hpp"

using namespace masu;
using namespace masu::net;
using fuzz::Input;
using fuzz::require;

namespace {

ServiceConfig sample() {
    ServiceConfig config{.guest_mac = {6, 0, 0, 0, 0, 1}, .mtu = 1400, .hostname = "web"};
    config.ipv4 = Ipv4Network{.address = Address::v4(0xac1f000a),
                              .prefix_length = 20,
                              .gateway = Address::v4(0xac1f0001),
                              .local_gateway = true,
                              .dns = {Address::v4(0xac1f0002)}};
    config.ipv6 = Ipv6Network{.address = Address::v6(0xfd00'0000'0000'0000, 0x10),
                              .prefix_length = 64,
                              .gateway = Address::v6(0xfe80'0000'0000'0000, 1),
                              .local_gateway = true};
    config.metadata = {Address::v4(0xa9fea9fe), Address::v6(0xfd00'0ec2'0000'0000, 0x254)};
    return config;
}

void drain(Services& services, Nanoseconds now) {
    for (int i = 0; i < 4096; ++i) {
        const auto frame = services.take_frame(now);
        if (frame.empty())
            return;
        require(read_packet(frame).has_value());
    }
    require(false);
}

// A DHCPv6 message in a frame whose lengths and checksums are right.
Bytes dhcpv6_message(Input& input) {
    const auto message = input.take_bytes(input.take<std::uint16_t>() % 2048);
    Bytes frame;
    write_udp(frame,
              {.from_mac = {6, 0, 0, 0, 0, 1},
               .to_mac = {0x33, 0x33, 0, 1, 0, 2},
               .from = Address::v6(0xfe80'0000'0000'0000, 0x1234),
               .to = dhcpv6_servers},
              dhcpv6_client_port, dhcpv6_server_port, message);
    return frame;
}

// A TCP segment to the metadata service that gets as far as the responder.
Bytes segment(Input& input) {
    Bytes tcp;
    const auto flags = input.take<std::uint8_t>();
    const auto port = static_cast<std::uint32_t>(40000 + input.take<std::uint8_t>() % 4);
    const auto size = input.take<std::uint8_t>();
    PacketWriter(tcp)
        .u16(port)
        .u16(80)
        .u32(input.take<std::uint8_t>())
        .u32(input.take<std::uint32_t>())
        .u8(0x50)
        .u8(flags)
        .u16(input.take<std::uint16_t>())
        .u32(0)
        .bytes(input.take_bytes(size));
    Bytes frame;
    write_packet(frame,
                 {.from_mac = {6, 0, 0, 0, 0, 1},
                  .to_mac = service_mac,
                  .from = Address::v4(0xac1f000a),
                  .to = Address::v4(0xa9fea9fe)},
                 protocol_tcp, tcp, 16);
    return frame;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input(data, size);
    MetadataStore store(51200);
    InstanceMetadata instance;
    instance.instance_id = "i-1";
    instance.user_data = "data";
    store.set(make_ec2_tree(instance));
    MetadataService metadata(store, {.ec2 = true});
    Services services(sample(), &metadata, 1);
    Nanoseconds now = 1'000'000'000;
    for (int step = 0; step < 256 && !input.done(); ++step) {
        const auto kind = input.take<std::uint8_t>();
        now += Nanoseconds{input.take<std::uint8_t>()} * 10'000'000;
        if (kind % 4 == 0) {
            const auto frame = segment(input);
            services.receive(frame, now);
        } else if (kind % 4 == 1) {
            // Straight to the service: the HTTP parser and the paths.
            const auto bytes = input.take_bytes(input.take<std::uint16_t>() % 2048);
            const auto text =
                std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size());
            require(metadata.serve({}, {}, text, now).consumed <= text.size());
        } else if (kind % 8 == 7) {
            services.receive(dhcpv6_message(input), now);
        } else {
            const auto frame = input.take_bytes(input.take<std::uint16_t>() % 2048);
            if (services.wants(frame))
                services.receive(frame, now);
            (void)services.impersonates(frame);
        }
        drain(services, now);
    }
    return 0;
}
