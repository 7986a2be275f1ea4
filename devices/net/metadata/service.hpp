// The instance metadata service: a document served over HTTP, with session tokens.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "devices/net/metadata/http.hpp"
#include "devices/net/metadata/store.hpp"
#include "devices/net/metadata/tokens.hpp"
#include "devices/net/services/tcp_responder.hpp"

namespace masu::net {

struct MetadataServiceOptions {
    // Ec2: the document is one instance's tree (metadata/ec2_tree.hpp), which appears under every
    // version; else it is served as it is, from its root (MMDS).
    bool ec2 = false;
    bool tokens_required = false;  // IMDSv2 only
    bool text_only = false;        // MMDS imds_compat: Accept: application/json is ignored
    // The hop limit of the packets that carry a token: how far from the guest it may be used.
    std::uint8_t token_hop_limit = 64;
};

// One for each interface that serves it, over one store. Loop thread.
class MetadataService final : public TcpApplication {
  public:
    // `store` is borrowed.
    MetadataService(const MetadataStore& store, const MetadataServiceOptions& options)
        : store_(store), options_(options) {}

    [[nodiscard]] Step serve(const Address& peer, const Address& local, std::string_view received,
                             Nanoseconds now) override;
    // What one request is answered.
    [[nodiscard]] MetadataResponse answer(const MetadataRequest& request, Nanoseconds now);
    // The guest has been restored elsewhere or rebooted.
    void forget_tokens() noexcept { tokens_.clear(); }

  private:
    [[nodiscard]] MetadataResponse make_token(const MetadataRequest& request, Nanoseconds now);
    [[nodiscard]] bool authorized(const MetadataRequest& request, Nanoseconds now) const;
    [[nodiscard]] MetadataResponse read(const MetadataRequest& request) const;

    const MetadataStore& store_;
    const MetadataServiceOptions options_;
    SessionTokens tokens_;
};

}  // namespace masu::net
