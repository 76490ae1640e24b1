// HostLogits: brings to the host what it wants to see of a step's logits: whole rows, which it samples, or only which
// token is the likeliest.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "octet/device/buffer.h"
#include "octet/device/stream.h"

namespace octet {

class HostLogits {
 public:
  // Rows brought at once, at most.
  static constexpr int64_t kMaxRows = 64;

  // max_choices: the longest list that choices() is asked for.
  HostLogits(Device device, int64_t vocab_size, int64_t max_choices);

  // Rows of `logits` [R, vocab_size] in host memory, to be overwritten by the caller; valid until the next call. Waits
  // for the device.
  std::vector<std::span<float>> rows(Tensor logits, std::span<const int32_t> indices, Stream stream);
  // `choices` [R] i32 in host memory, valid until the next call. Waits for the device.
  std::span<const int32_t> choices(ConstTensor choices, Stream stream);

 private:
  int64_t vocab_size_;
  Buffer rows_, choices_;  // pinned; empty on the CPU
};

}  // namespace octet
