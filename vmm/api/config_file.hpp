// The config file: everything a VM is made of, in one JSON object with the sections of the API.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "vmm/vmm_action.hpp"

namespace masu::api {

// {"boot-source": {...}, "drives": [{...}], "machine-config": {...}, "entropy": {...},
//  "logger": {...}, "metrics": {...}, "serial": {...}}; boot-source is mandatory.
// The actions to apply, in order (the start is not among them). `path` is for error messages.
[[nodiscard]] Result<std::vector<VmmAction>> parse_config(std::string_view text,
                                                          const std::string& path);

// The same from a file of at most 1 MiB.
[[nodiscard]] Result<std::vector<VmmAction>> read_config_file(const std::string& path);

}  // namespace masu::api
