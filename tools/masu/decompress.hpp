// gzip, xz and zstd streams as they come out of a file, checked by their own checksums.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>

#include "base/result.hpp"
#include "tools/masu/image_format.hpp"

namespace masu::cli {

class Decompressor {
  public:
    // The next piece of the compressed file, valid until the next call; empty at the end.
    using Source = std::function<Result<std::span<const std::byte>>()>;

    virtual ~Decompressor() = default;
    // Fills `to` as far as it goes; 0 at the end of the last stream. The error tells a stream that
    // ends too early from one that is damaged.
    [[nodiscard]] virtual Result<std::size_t> read(std::span<std::byte> to) = 0;
};

// Several streams one after the other are one content, as gzip, xz and zstd themselves have it.
// Memory is bounded whatever the stream asks for. `compression` is not None.
[[nodiscard]] Result<std::unique_ptr<Decompressor>> make_decompressor(Compression compression,
                                                                      Decompressor::Source source);

}  // namespace masu::cli
