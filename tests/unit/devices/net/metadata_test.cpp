// The metadata service: tokens, both dialects, and the walk that cloud-init does.
#include <doctest/doctest.h>

#include <boost/json.hpp>

#include "devices/net/metadata/ec2_tree.hpp"
#include "devices/net/metadata/service.hpp"

namespace masu::net {
namespace {

constexpr Nanoseconds second = 1'000'000'000;

InstanceMetadata sample() {
    InstanceMetadata instance;
    instance.instance_id = "i-0123456789abcdef0";
    instance.hostname = "web";
    instance.public_keys = {{"my-key", "ssh-ed25519 AAAA me"}, {"other", "ssh-rsa BBBB"}};
    instance.user_data = std::string("#cloud-config\n\0\xff", 16);
    instance.security_groups = {"default", "web"};
    instance.tags = {{"Name", "web"}};
    instance.role = "reader";
    instance.role_credentials = R"({"Code":"Success"})";
    instance.pending_time = "2026-01-01T00:00:00Z";
    instance.interfaces = {{.mac = {6, 0, 0, 0, 0, 0xab},
                            .ipv4 = Address::v4(0xac1f000a),
                            .subnet4 = "172.31.0.0/20",
                            .ipv6 = std::nullopt,
                            .subnet6 = std::nullopt}};
    return instance;
}

struct Rig {
    explicit Rig(const MetadataServiceOptions& options = {.ec2 = true, .tokens_required = true})
        : service(store, options) {
        store.set(make_ec2_tree(sample()));
    }
    std::string exchange(const std::string& text) {
        const auto step = service.serve({}, {}, text, now);
        CHECK(step.consumed == text.size());
        last_hop_limit = step.hop_limit;
        return step.response;
    }
    MetadataResponse call(const std::string& method, const std::string& path) {
        return service.answer({.method = method, .path = path, .token = token}, now);
    }
    std::string get(const std::string& path) {
        const auto response = call("GET", path);
        CHECK_MESSAGE(response.status == 200, path);
        return response.body;
    }
    void take_token(const char* ttl = "21600") {
        const auto response =
            service.answer({.method = "PUT", .path = "/latest/api/token", .token_ttl = ttl}, now);
        REQUIRE(response.status == 200);
        token = response.body;
    }
    MetadataStore store{51200};
    MetadataService service;
    Nanoseconds now = second;
    std::optional<std::string> token;
    std::uint8_t last_hop_limit = 0;
};

// Every name that a directory lists is there, down to the leaves, as cloud-init's recursive walk
// demands. How many leaves there were.
int walk(Rig& rig, const std::string& path) {
    int leaves = 0;
    const auto list = rig.get(path);
    for (std::size_t at = 0; at < list.size();) {
        const auto end = std::min(list.find('\n', at), list.size());
        auto name = list.substr(at, end - at);
        at = end + 1;
        REQUIRE_FALSE(name.empty());
        if (const auto equals = name.find('='); equals != std::string::npos) {
            // "0=my-key" stands for public-keys/0/openssh-key
            CHECK(rig.get(path + name.substr(0, equals) + "/") == "openssh-key");
            CHECK(rig.get(path + name.substr(0, equals) + "/openssh-key").starts_with("ssh-"));
            ++leaves;
        } else if (name.ends_with('/')) {
            leaves += walk(rig, path + name);
        } else {
            CHECK_FALSE(rig.get(path + name).empty());
            ++leaves;
        }
    }
    return leaves;
}

}  // namespace

TEST_CASE("cloud-init's walk finds every name it is told of") {
    Rig rig;
    rig.take_token();
    CHECK(rig.get("/2021-03-23/meta-data/instance-id") == "i-0123456789abcdef0");
    CHECK(walk(rig, "/2021-03-23/meta-data/") > 30);
    CHECK(rig.get("/2021-03-23/user-data") == std::string("#cloud-config\n\0\xff", 16));
    CHECK(rig.get("/2021-03-23/dynamic/instance-identity") == "document");
    const auto document =
        boost::json::parse(rig.get("/2021-03-23/dynamic/instance-identity/document"));
    CHECK(document.at("instanceId").as_string() == "i-0123456789abcdef0");
    CHECK(document.at("privateIp").as_string() == "172.31.0.10");
    const auto mac = std::string("06:00:00:00:00:ab");
    CHECK(rig.get("/latest/meta-data/network/interfaces/macs") == mac + "/");
    CHECK(rig.get("/latest/meta-data/network/interfaces/macs/" + mac + "/local-ipv4s") ==
          "172.31.0.10");
    CHECK(rig.get("/latest/meta-data/public-keys/") == "0=my-key\n1=other");
    CHECK(rig.get("/latest/meta-data/iam/security-credentials/") == "reader");
    CHECK(rig.get("/latest/meta-data/iam/security-credentials/reader") == R"({"Code":"Success"})");
    CHECK(rig.get("/").starts_with("1.0\n"));
    CHECK(rig.get("/latest") == "dynamic/\nmeta-data/\nuser-data");
    CHECK(rig.call("GET", "/2031-01-01/meta-data/").status == 404);
    CHECK(rig.call("GET", "/latest/meta-data/no-such-thing").status == 404);
    CHECK(rig.call("GET", "/latest/meta-data/instance-id/deeper").status == 404);
}

TEST_CASE("what an instance does not have is not listed") {
    InstanceMetadata bare;
    bare.instance_id = "i-1";
    bare.hostname = "bare";
    Rig rig;
    rig.store.set(make_ec2_tree(bare));
    rig.take_token();
    CHECK(walk(rig, "/latest/meta-data/") > 10);
    CHECK(rig.call("GET", "/latest/user-data").status == 404);
    CHECK(rig.get("/latest/meta-data/").find("public-keys") == std::string::npos);
    CHECK(rig.get("/latest/meta-data/").find("iam") == std::string::npos);
}

TEST_CASE("tokens are needed, last as long as asked, and are made for the guest only") {
    Rig rig;
    CHECK(rig.call("GET", "/latest/meta-data/").status == 401);
    rig.token = "nonsense";
    CHECK(rig.call("GET", "/latest/meta-data/").status == 401);
    rig.take_token("60");
    rig.now += 60 * second - 1;
    CHECK(rig.call("GET", "/latest/meta-data/").status == 200);
    CHECK(rig.call("HEAD", "/latest/meta-data/").status == 200);
    rig.now += 1;
    CHECK(rig.call("GET", "/latest/meta-data/").status == 401);
    const auto put = [&](std::optional<std::string> ttl, bool forwarded = false,
                         std::string path = "/latest/api/token") {
        return rig.service
            .answer({.method = "PUT", .path = path, .token_ttl = ttl, .forwarded = forwarded},
                    rig.now)
            .status;
    };
    CHECK(put("1") == 200);
    CHECK(put("21600") == 200);
    CHECK(put(std::nullopt) == 400);
    for (const char* bad : {"0", "21601", "", "-1", "1.5", "60s", " 60", "99999999999999999999"})
        CHECK_MESSAGE(put(bad) == 400, bad);
    CHECK(put("60", true) == 403);
    CHECK(put("60", false, "/2021-03-23/api/token") == 403);
    CHECK(put("60", false, "/latest/meta-data/") == 405);
    CHECK(rig.call("POST", "/latest/meta-data/").status == 405);
    CHECK(rig.call("DELETE", "/").status == 405);

    Rig optional({.ec2 = true});
    CHECK(optional.call("GET", "/latest/meta-data/").status == 200);
    optional.token = "nonsense";
    CHECK(optional.call("GET", "/latest/meta-data/").status == 401);
}

TEST_CASE("the table of tokens is bounded, and the newest are kept") {
    Rig rig;
    rig.take_token("100");
    const auto first = rig.token;
    for (std::size_t i = 0; i < SessionTokens::max_tokens; ++i)
        rig.take_token("21600");
    CHECK(rig.call("GET", "/latest/").status == 200);
    rig.token = first;
    CHECK(rig.call("GET", "/latest/").status == 401);
}

TEST_CASE("HTTP around it: headers in any case, HEAD, keep-alive, bad requests") {
    Rig rig({.ec2 = true, .tokens_required = true, .token_hop_limit = 2});
    auto answer = rig.exchange(
        "PUT /latest/api/token HTTP/1.1\r\nHost: x\r\nx-AWS-ec2-metadata-token-TTL-seconds: "
        "60\r\nContent-Length: 0\r\n\r\n");
    CHECK(answer.starts_with("HTTP/1.1 200 OK\r\n"));
    CHECK(answer.find("X-aws-ec2-metadata-token-ttl-seconds: 60\r\n") != std::string::npos);
    CHECK(rig.last_hop_limit == 2);
    const auto token = answer.substr(answer.find("\r\n\r\n") + 4);
    answer = rig.exchange(
        "GET http://169.254.169.254//latest//meta-data/instance-id?x=1 "
        "HTTP/1.1\r\nX-aws-ec2-metadata-token: " +
        token + "\r\n\r\n");
    CHECK(answer.ends_with("\r\n\r\ni-0123456789abcdef0"));
    CHECK(answer.find("Content-Length: 19\r\n") != std::string::npos);
    CHECK(answer.find("keep-alive") != std::string::npos);
    CHECK(rig.last_hop_limit == 64);
    answer = rig.exchange(
        "HEAD /latest/meta-data/instance-id HTTP/1.0\r\n"
        "X-metadata-token: " +
        token + "\r\n\r\n");
    CHECK(answer.ends_with("Content-Length: 19\r\nConnection: close\r\n\r\n"));
    CHECK(rig.exchange("nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
    CHECK(rig.exchange(std::string(9000, 'x')).starts_with("HTTP/1.1 400"));
    CHECK(rig.exchange("PUT / HTTP/1.1\r\nContent-Length: 99999\r\n\r\n")
              .starts_with("HTTP/1.1 400"));
    CHECK(rig.service.serve({}, {}, "GET / HTTP/1.1\r\n", 0).consumed == 0);
    CHECK(rig.service.serve({}, {}, "PUT / HTTP/1.1\r\nContent-Length: 5\r\n\r\nab", 0).consumed ==
          0);
}

TEST_CASE("MMDS serves the document as it is") {
    Rig rig({.tokens_required = false});
    REQUIRE(rig.store.put(R"({"latest": {"meta-data": {"ami-id": "ami-1", "n": 5}, "list": []}})"));
    CHECK(rig.get("/latest/meta-data/ami-id") == "ami-1");
    CHECK(rig.get("/latest") == "meta-data/\nlist");
    CHECK(rig.get("/") == "latest/");
    CHECK(rig.call("GET", "/latest/meta-data/n").status == 501);
    CHECK(rig.call("GET", "/ami-id").status == 404);
    const auto json = rig.service.answer(
        {.method = "GET", .path = "/latest/meta-data", .wants_json = true}, rig.now);
    CHECK(json.body == R"({"ami-id":"ami-1","n":5})");
    CHECK(json.content_type == "application/json");
    // V1 hands out tokens, and looks at none.
    rig.token = "nonsense";
    CHECK(rig.call("GET", "/latest").status == 200);
    CHECK(rig.service
              .answer({.method = "PUT",
                       .path = "/latest/api/token",
                       .token_ttl = "60",
                       .forwarded = true},
                      rig.now)
              .status == 400);

    Rig strict({.tokens_required = true, .text_only = true});
    REQUIRE(strict.store.put(R"({"a": {"b": "c"}})"));
    CHECK(strict.call("GET", "/a").status == 401);
    strict.take_token();
    CHECK(strict.service
              .answer({.method = "GET", .path = "/a", .token = strict.token, .wants_json = true},
                      strict.now)
              .body == "b");
}

TEST_CASE("the store merges, and refuses what is too large or no JSON") {
    MetadataStore store(100);
    CHECK_FALSE(store.patch("{}"));
    CHECK(store.text() == "{}");
    REQUIRE(store.put(R"({"a": {"b": 1, "c": 2}})"));
    REQUIRE(store.patch(R"({"a": {"b": null, "d": {"e": 3}}})"));
    CHECK(store.text() == R"({"a":{"c":2,"d":{"e":3}}})");
    const auto before = store.text();
    CHECK_FALSE(store.put("{"));
    CHECK_FALSE(store.put(std::string(1000, '[')));
    const auto large = store.patch("{\"x\": \"" + std::string(100, 'y') + "\"}");
    REQUIRE_FALSE(large);
    CHECK(large.error().os_errno == EFBIG);
    CHECK(store.text() == before);
}

}  // namespace masu::net
