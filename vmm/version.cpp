// The version, from the build.
#include "vmm/version.hpp"

namespace masu {

std::string_view version() noexcept {
    return MASU_VERSION;
}

}  // namespace masu
