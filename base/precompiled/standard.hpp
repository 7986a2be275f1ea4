// The standard headers that most files include, for -Db_pch=true. No file may count on it: builds
// without it are the usual ones. (Without #pragma once, which GCC does not let a main file say:
// nothing includes it but with_json.hpp.)
#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <expected>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>
