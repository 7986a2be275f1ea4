// DNS messages of any content: read within bounds and time, and a refusal that is itself readable.
#include <cstdint>
#include <vector>

#include "devices/net/firewall/dns_message.hpp"
#include "tests/fuzz/input.hpp"

using namespace masu::net;
using masu::fuzz::require;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto message = std::as_bytes(std::span(data, size));
    DnsAnswer answer;
    if (read_dns_answer(message, answer)) {
        require(answer.count <= DnsAnswer::max_addresses);
        require(answer.question.name.view().size() < DnsText::max_size);
    }
    const auto question = read_dns_query(message);
    if (!question)
        return 0;
    std::array<std::byte, max_refusal> refusal;
    const auto written = write_dns_refusal(*question, true, refusal);
    require(written <= refusal.size());
    require(read_dns_answer(std::span(refusal).first(written), answer));
    require(answer.question.name.view() == question->name.view());
    require(answer.question.id == question->id && answer.count == 0);
    return 0;
}
