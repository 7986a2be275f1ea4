#include "firmware/fs/on_disk.hpp"

namespace masu::firmware {

Result<> check_features(std::uint32_t present, std::span<const Feature> known,
                        const char* unknown_refusal) {
    for (const auto& feature : known) {
        if ((present & feature.bit) == 0)
            continue;
        if (feature.refusal != nullptr)
            return fail(ErrorCode::Unsupported, feature.refusal, feature.bit);
        present &= ~feature.bit;
    }
    if (present != 0)
        return fail(ErrorCode::Unsupported, unknown_refusal, present);
    return {};
}

FileType type_of_mode(std::uint16_t mode) {
    switch (mode & 0xf000) {
        case 0x4000:
            return FileType::Directory;
        case 0x8000:
            return FileType::Regular;
        case 0xa000:
            return FileType::SymbolicLink;
        default:
            return FileType::Other;
    }
}

FileType type_of_entry(std::uint8_t type) {
    switch (type) {
        case 1:
            return FileType::Regular;
        case 2:
            return FileType::Directory;
        case 7:
            return FileType::SymbolicLink;
        default:
            return FileType::Other;
    }
}

}  // namespace masu::firmware
