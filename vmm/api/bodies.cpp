// Configurations as JSON.
#include "vmm/api/bodies.hpp"

#include <algorithm>
#include <array>

#include "vmm/api/network_bodies.hpp"

namespace masu::api {
namespace {

using Word = std::string_view;
constexpr std::array huge_page_words{std::pair(Word("None"), HugePages::None),
                                     std::pair(Word("Transparent"), HugePages::Transparent),
                                     std::pair(Word("2M"), HugePages::Explicit2M)};
// "None" is the reference's word.
constexpr std::array template_words{std::pair(Word("None"), CpuTemplate::Host),
                                    std::pair(Word("host"), CpuTemplate::Host),
                                    std::pair(Word("x86-64-v2"), CpuTemplate::X86_64_v2),
                                    std::pair(Word("x86-64-v3"), CpuTemplate::X86_64_v3),
                                    std::pair(Word("x86-64-v4"), CpuTemplate::X86_64_v4)};
constexpr std::array cache_words{std::pair(Word("Unsafe"), CacheType::Unsafe),
                                 std::pair(Word("Writeback"), CacheType::Writeback)};
constexpr std::array engine_words{std::pair(Word("Sync"), IoEngine::Sync),
                                  std::pair(Word("Async"), IoEngine::Async)};

template <class T>
std::optional<T> choice(JsonObject& body, Word key, std::span<const std::pair<Word, T>> words) {
    return body.choice<T>(key, words);
}

template <class T, std::size_t count>
Word word_for(const std::array<std::pair<Word, T>, count>& words, T value) {
    const auto* found = std::ranges::find(words, value, &std::pair<Word, T>::second);
    return found == words.end() ? Word() : found->first;
}

// The fields of a token bucket that are not ours are ignored, as stock monitors do.
Result<std::optional<TokenBucketConfig>> read_bucket(JsonObject& limiter, Word key) {
    auto body = limiter.object(key);
    if (!body)
        return std::optional<TokenBucketConfig>();
    TokenBucketConfig bucket;
    bucket.size = body->required_integer("size");
    bucket.refill_time_ms = body->required_integer("refill_time");
    bucket.one_time_burst = body->integer("one_time_burst").value_or(0);
    TRY(body->status());
    return std::optional(bucket);
}

void write(JsonWriter& json, const TokenBucketConfig& bucket) {
    json.begin_object().field("size", bucket.size).field("refill_time", bucket.refill_time_ms);
    if (bucket.one_time_burst != 0)
        json.field("one_time_burst", bucket.one_time_burst);
    json.end_object();
}

template <class T>
void optional_field(JsonWriter& json, Word key, const std::optional<T>& value) {
    if (value)
        json.field(key, *value);
}

void write(JsonWriter& json, const BootSource& source) {
    json.begin_object();
    if (source.firmware) {
        json.field("firmware", true).field("boot_menu", source.boot_menu);
        if (source.boot_device != 0)
            json.field("boot_device", source.boot_device);
        optional_field(json, "boot_args", source.boot_args);
        json.end_object();
        return;
    }
    json.field("kernel_image_path", source.kernel_image_path);
    optional_field(json, "initrd_path", source.initrd_path);
    optional_field(json, "boot_args", source.boot_args);
    json.end_object();
}

void write(JsonWriter& json, const DriveConfig& drive) {
    json.begin_object()
        .field("drive_id", drive.drive_id)
        .field("path_on_host", drive.path_on_host)
        .field("is_root_device", drive.is_root_device)
        .field("is_read_only", drive.is_read_only)
        .field("cache_type", word_for(cache_words, drive.cache_type))
        .field("io_engine", word_for(engine_words, drive.io_engine));
    optional_field(json, "partuuid", drive.partuuid);
    optional_field(json, "overlay_path", drive.overlay_path);
    optional_field(json, "overlay_size", drive.overlay_size);
    optional_field(json, "serial", drive.serial);
    if (drive.direct)
        json.field("direct", true);
    write_limiter(json, drive.rate_limiter);
    json.end_object();
}

void write(JsonWriter& json, const MetricsConfig& metrics) {
    json.begin_object()
        .field("metrics_path", metrics.metrics_path)
        .field("emit_id", metrics.emit_id);
    if (!metrics.properties.empty()) {
        json.key("properties").begin_object();
        for (const auto& [name, value] : metrics.properties)
            json.field(name, value);
        json.end_object();
    }
    json.end_object();
}

constexpr std::uint64_t any_boot_device = 255;  // check() knows the limit
constexpr std::uint64_t any_vcpu_count = 255;   // u8 on the wire; check() knows the limit

}  // namespace

Result<std::optional<RateLimiterConfig>> read_limiter(JsonObject& owner, Word key) {
    auto body = owner.object(key);
    if (!body)
        return std::optional<RateLimiterConfig>();
    RateLimiterConfig limiter;
    limiter.bandwidth = TRY(read_bucket(*body, "bandwidth"));
    limiter.ops = TRY(read_bucket(*body, "ops"));
    TRY(body->finish());
    return std::optional(limiter);
}

void write_limiter(JsonWriter& json, const RateLimiterConfig& limiter, Word key) {
    if (limiter == RateLimiterConfig())
        return;
    json.key(key).begin_object();
    if (limiter.bandwidth)
        write(json.key("bandwidth"), *limiter.bandwidth);
    if (limiter.ops)
        write(json.key("ops"), *limiter.ops);
    json.end_object();
}

Result<MachineConfig> read_machine_config(JsonObject& body) {
    MachineConfig machine;
    machine.vcpu_count = static_cast<unsigned>(body.required_integer("vcpu_count", any_vcpu_count));
    machine.mem_size_mib = body.required_integer("mem_size_mib");
    machine.smt = body.boolean("smt").value_or(false);
    machine.track_dirty_pages = body.boolean("track_dirty_pages").value_or(false);
    machine.huge_pages =
        choice<HugePages>(body, "huge_pages", huge_page_words).value_or(HugePages::None);
    machine.cpu_template =
        choice<CpuTemplate>(body, "cpu_template", template_words).value_or(CpuTemplate::Host);
    TRY(body.finish());
    return machine;
}

Result<action::PatchMachineConfig> read_machine_patch(JsonObject& body) {
    action::PatchMachineConfig patch;
    if (const auto count = body.integer("vcpu_count", any_vcpu_count))
        patch.vcpu_count = static_cast<unsigned>(*count);
    patch.mem_size_mib = body.integer("mem_size_mib");
    patch.smt = body.boolean("smt");
    patch.track_dirty_pages = body.boolean("track_dirty_pages");
    patch.huge_pages = choice<HugePages>(body, "huge_pages", huge_page_words);
    patch.cpu_template = choice<CpuTemplate>(body, "cpu_template", template_words);
    TRY(body.finish());
    if (!patch.vcpu_count && !patch.mem_size_mib && !patch.smt && !patch.track_dirty_pages &&
        !patch.huge_pages && !patch.cpu_template)
        return fail("{}: the patch is empty", body.where());
    return patch;
}

Result<BootSource> read_boot_source(JsonObject& body) {
    BootSource source;
    source.firmware = body.boolean("firmware").value_or(false);
    source.boot_menu = body.boolean("boot_menu").value_or(false);
    source.boot_device =
        static_cast<unsigned>(body.integer("boot_device", any_boot_device).value_or(0));
    if (source.firmware)
        source.kernel_image_path = body.string("kernel_image_path").value_or("");
    else
        source.kernel_image_path = body.required_string("kernel_image_path");
    source.initrd_path = body.string("initrd_path");
    source.boot_args = body.string("boot_args", 64 * std::size_t{1024});
    TRY(body.finish());
    return source;
}

Result<DriveConfig> read_drive(JsonObject& body) {
    DriveConfig drive;
    drive.drive_id = body.required_string("drive_id");
    drive.is_root_device = body.required_boolean("is_root_device");
    drive.partuuid = body.string("partuuid");
    if (body.has("socket"))
        body.complain("socket", "(vhost-user) is not supported; give `path_on_host`");
    drive.path_on_host = body.required_string("path_on_host");
    drive.is_read_only = body.boolean("is_read_only").value_or(false);
    drive.cache_type =
        choice<CacheType>(body, "cache_type", cache_words).value_or(CacheType::Writeback);
    drive.io_engine = choice<IoEngine>(body, "io_engine", engine_words).value_or(IoEngine::Async);
    drive.rate_limiter = TRY(read_limiter(body)).value_or(RateLimiterConfig());
    drive.overlay_path = body.string("overlay_path");
    drive.overlay_size = body.integer("overlay_size");
    drive.serial = body.string("serial");
    drive.direct = body.boolean("direct").value_or(false);
    body.expect_nothing("socket", "is not supported");
    TRY(body.finish());
    return drive;
}

Result<action::PatchDrive> read_drive_patch(JsonObject& body) {
    action::PatchDrive patch;
    patch.drive_id = body.required_string("drive_id");
    patch.path_on_host = body.string("path_on_host");
    if (patch.path_on_host && patch.path_on_host->empty())
        body.complain("path_on_host", "is empty; leave it out to look at the size again");
    patch.rate_limiter = TRY(read_limiter(body));
    TRY(body.finish());
    return patch;
}

Result<EntropyConfig> read_entropy(JsonObject& body) {
    EntropyConfig entropy;
    entropy.rate_limiter = TRY(read_limiter(body)).value_or(RateLimiterConfig());
    TRY(body.finish());
    return entropy;
}

Result<VsockConfig> read_vsock(JsonObject& body) {
    VsockConfig vsock;
    constexpr auto limit = std::numeric_limits<std::uint32_t>::max();
    vsock.guest_cid = static_cast<std::uint32_t>(body.required_integer("guest_cid", limit));
    vsock.uds_path = body.required_string("uds_path");
    std::ignore = body.string("vsock_id");  // of older clients; there is one device
    TRY(body.finish());
    return vsock;
}

Result<LoggerConfig> read_logger(JsonObject& body) {
    LoggerConfig logger;
    logger.log_path = body.string("log_path");
    logger.level = body.string("level");
    // A line always carries its level and its component, so these two ask for what is there.
    std::ignore = body.boolean("show_level");
    std::ignore = body.boolean("show_log_origin");
    body.expect_nothing("module", "is not supported; leave it out to log every component");
    TRY(body.finish());
    return logger;
}

Result<MetricsConfig> read_metrics(JsonObject& body) {
    MetricsConfig metrics;
    metrics.metrics_path = body.required_string("metrics_path");
    metrics.emit_id = body.boolean("emit_id").value_or(false);
    metrics.properties = body.string_map("properties");
    TRY(body.finish());
    return metrics;
}

Result<action::SetSerial> read_serial(JsonObject& body) {
    action::SetSerial serial;
    serial.serial_out_path = body.string("serial_out_path");
    body.expect_nothing("rate_limiter", "is not supported on the serial port");
    TRY(body.finish());
    return serial;
}

void write(JsonWriter& json, const MachineConfig& machine) {
    json.begin_object()
        .field("vcpu_count", machine.vcpu_count)
        .field("mem_size_mib", machine.mem_size_mib)
        .field("smt", machine.smt)
        .field("track_dirty_pages", machine.track_dirty_pages)
        .field("huge_pages", word_for(huge_page_words, machine.huge_pages));
    if (machine.cpu_template != CpuTemplate::Host)
        json.field("cpu_template", word_for(template_words, machine.cpu_template));
    json.end_object();
}

void write(JsonWriter& json, const FullConfig& config) {
    json.begin_object().key("drives").begin_array();
    for (const auto& drive : config.vm.drives)
        write(json, drive);
    json.end_array();
    if (config.vm.boot_source)
        write(json.key("boot-source"), *config.vm.boot_source);
    write(json.key("machine-config"), config.vm.machine);
    json.key("network-interfaces").begin_array();
    for (const auto& interface : config.vm.network_interfaces)
        write(json, interface);
    json.end_array();
    if (config.vm.mmds)
        write(json.key("mmds-config"), *config.vm.mmds);
    if (config.vm.metadata)
        write(json.key("instance-metadata"), *config.vm.metadata, config.secrets);
    if (config.vm.entropy) {
        json.key("entropy").begin_object();
        write_limiter(json, config.vm.entropy->rate_limiter);
        json.end_object();
    }
    if (config.vm.vsock)
        json.key("vsock")
            .begin_object()
            .field("guest_cid", config.vm.vsock->guest_cid)
            .field("uds_path", config.vm.vsock->uds_path)
            .end_object();
    if (config.logger) {
        json.key("logger").begin_object();
        optional_field(json, "log_path", config.logger->log_path);
        optional_field(json, "level", config.logger->level);
        json.end_object();
    }
    if (config.metrics)
        write(json.key("metrics"), *config.metrics);
    if (config.serial_out_path)
        json.key("serial")
            .begin_object()
            .field("serial_out_path", *config.serial_out_path)
            .end_object();
    json.end_object();
}

void write_fields(JsonWriter& json, const MetricsReport& report) {
    json.field("utc_timestamp_ms", report.wall_time / 1'000'000);
    // Samples come in order of creation; a group may have been added to later.
    std::vector<std::string_view> groups;
    for (const auto& sample : report.samples)
        if (std::ranges::find(groups, sample.group) == groups.end())
            groups.push_back(sample.group);
    for (const auto group : groups) {
        json.key(group).begin_object();
        for (const auto& sample : report.samples)
            if (sample.group == group)
                json.field(sample.name, sample.value);
        json.end_object();
    }
}

}  // namespace masu::api
