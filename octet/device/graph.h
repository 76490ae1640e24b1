// Graph: a recorded sequence of kernel launches that is replayed as one. The CPU has none: supports_graphs() is false
// and callers run their function directly. The CUDA device implements capture and replay behind this class.
#pragma once

#include <functional>

#include "octet/device/device.h"

namespace octet {

bool supports_graphs(Device device);

}  // namespace octet
