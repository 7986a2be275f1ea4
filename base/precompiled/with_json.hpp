// standard.hpp, and the JSON that most of vmm/ and tools/ reads and writes.
#include <boost/json.hpp>

#include "base/precompiled/standard.hpp"
