// A kernel that writes a case's arguments as late as it can: what a kernel under test must wait for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "octet/device/device.h"

namespace octet::ops_test {

struct LateWrite {
  std::byte* to;  // of the GPU, as `from`
  const std::byte* from;
  int64_t num_bytes;
};

// Lets the next kernel in the stream start at once, waits for long enough that it has run if it does not wait, and
// makes the writes.
void write_late(const std::vector<LateWrite>& writes, Stream stream);

}  // namespace octet::ops_test
