// One small class for each library: zlib, liblzma, libzstd.
#include "tools/masu/decompress.hpp"

#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>

#include "base/bytes.hpp"

namespace masu::cli {
namespace {

constexpr auto damaged = "is damaged: its {} data do not fit their checksum; fetch it again";
constexpr auto cut_short = "is cut short: its {} data end in the middle; fetch it again";

class Gzip final : public Decompressor {
  public:
    explicit Gzip(Source source) : source_(std::move(source)) {}
    Gzip(const Gzip&) = delete;
    Gzip& operator=(const Gzip&) = delete;
    ~Gzip() override { ::inflateEnd(&stream_); }

    [[nodiscard]] bool start() { return ::inflateInit2(&stream_, 15 + gzip_only) == Z_OK; }

    Result<std::size_t> read(std::span<std::byte> to) override {
        stream_.next_out = reinterpret_cast<Bytef*>(to.data());
        stream_.avail_out = static_cast<uInt>(to.size());
        while (stream_.avail_out != 0) {
            if (stream_.avail_in == 0 && !TRY(refill())) {
                if (!between_members_)
                    return fail(cut_short, "gzip");
                break;
            }
            if (between_members_ && !TRY(next_member()))
                break;
            const int result = ::inflate(&stream_, Z_NO_FLUSH);
            if (result == Z_STREAM_END)
                between_members_ = true;
            else if (result != Z_OK && result != Z_BUF_ERROR)
                return fail(damaged, "gzip");
        }
        return to.size() - stream_.avail_out;
    }

  private:
    static constexpr int gzip_only = 16;  // added to the window's size

    Result<bool> refill() {
        const auto piece = TRY(source_());
        stream_.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(piece.data()));
        stream_.avail_in = static_cast<uInt>(piece.size());
        return !piece.empty();
    }

    // Behind a member comes another one, or zeros that pad a tape's block, or the end.
    Result<bool> next_member() {
        for (;;) {
            while (stream_.avail_in != 0 && !first_ && *stream_.next_in == 0) {
                ++stream_.next_in;
                --stream_.avail_in;
            }
            if (stream_.avail_in != 0)
                break;
            if (!TRY(refill()))
                return false;
        }
        if (!first_ && ::inflateReset(&stream_) != Z_OK)
            return fail(damaged, "gzip");
        first_ = false;
        between_members_ = false;
        return true;
    }

    Source source_;
    z_stream stream_{};
    bool between_members_ = true;
    bool first_ = true;
};

class Xz final : public Decompressor {
  public:
    explicit Xz(Source source) : source_(std::move(source)) {}
    Xz(const Xz&) = delete;
    Xz& operator=(const Xz&) = delete;
    ~Xz() override { ::lzma_end(&stream_); }

    [[nodiscard]] bool start() {
        // Presets up to -9 need 65 MiB a thread; beyond the first limit fewer threads work.
        lzma_mt options{};
        options.flags = LZMA_CONCATENATED;
        options.threads = std::clamp(::lzma_cputhreads(), 1U, 8U);
        options.memlimit_threading = 256 * MiB;
        options.memlimit_stop = 512 * MiB;
        return ::lzma_stream_decoder_mt(&stream_, &options) == LZMA_OK;
    }

    Result<std::size_t> read(std::span<std::byte> to) override {
        stream_.next_out = reinterpret_cast<std::uint8_t*>(to.data());
        stream_.avail_out = to.size();
        while (stream_.avail_out != 0 && !ended_) {
            if (stream_.avail_in == 0 && !input_ended_) {
                const auto piece = TRY(source_());
                stream_.next_in = reinterpret_cast<const std::uint8_t*>(piece.data());
                stream_.avail_in = piece.size();
                input_ended_ = piece.empty();
            }
            const auto result = ::lzma_code(&stream_, input_ended_ ? LZMA_FINISH : LZMA_RUN);
            if (result == LZMA_STREAM_END)
                ended_ = true;
            else if (result == LZMA_BUF_ERROR)
                return fail(cut_short, "xz");
            else if (result == LZMA_MEMLIMIT_ERROR)
                return fail("wants more than 512 MiB of memory to be unpacked; unpack it with xz");
            else if (result != LZMA_OK)
                return fail(damaged, "xz");
        }
        return to.size() - stream_.avail_out;
    }

  private:
    Source source_;
    lzma_stream stream_ = LZMA_STREAM_INIT;
    bool input_ended_ = false;
    bool ended_ = false;
};

class Zstd final : public Decompressor {
  public:
    explicit Zstd(Source source) : source_(std::move(source)) {}

    [[nodiscard]] bool start() const { return context_ != nullptr; }

    Result<std::size_t> read(std::span<std::byte> to) override {
        ZSTD_outBuffer output{to.data(), to.size(), 0};
        while (output.pos < output.size) {
            if (input_.pos == input_.size && !flushing_) {
                const auto piece = TRY(source_());
                if (piece.empty()) {
                    if (in_frame_)
                        return fail(cut_short, "zstd");
                    break;
                }
                input_ = {piece.data(), piece.size(), 0};
            }
            const auto result = ::ZSTD_decompressStream(context_.get(), &output, &input_);
            if (::ZSTD_isError(result) != 0)
                return fail(damaged, "zstd");
            in_frame_ = result != 0;
            // A full output buffer may have left some of the block in the library.
            flushing_ = in_frame_ && output.pos == output.size;
        }
        return output.pos;
    }

  private:
    struct Free {
        void operator()(ZSTD_DCtx* context) const { ::ZSTD_freeDCtx(context); }
    };
    Source source_;
    std::unique_ptr<ZSTD_DCtx, Free> context_{::ZSTD_createDCtx()};
    ZSTD_inBuffer input_{nullptr, 0, 0};
    bool in_frame_ = false;
    bool flushing_ = false;
};

template <class Kind>
Result<std::unique_ptr<Decompressor>> started(Decompressor::Source source) {
    auto decompressor = std::make_unique<Kind>(std::move(source));
    if (!decompressor->start())
        return fail("cannot be unpacked: there is no memory for that");
    return decompressor;
}

}  // namespace

Result<std::unique_ptr<Decompressor>> make_decompressor(Compression compression,
                                                        Decompressor::Source source) {
    switch (compression) {
        case Compression::Gzip:
            return started<Gzip>(std::move(source));
        case Compression::Xz:
            return started<Xz>(std::move(source));
        case Compression::Zstd:
            return started<Zstd>(std::move(source));
        case Compression::None:
            break;
    }
    return fail("is not compressed");
}

}  // namespace masu::cli
