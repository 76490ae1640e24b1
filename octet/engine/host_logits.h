// HostLogits: brings to the host what it wants to see of a step's logits: whole rows, which it samples, or only which
// tokens the device has drawn.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "octet/device/buffer.h"
#include "octet/device/stream.h"
#include "octet/ops/ops.h"

namespace octet {

class HostLogits {
 public:
  // Rows brought at once, at most.
  static constexpr int64_t kMaxRows = 64;

  // Steps whose choices may be on their way at once.
  static constexpr size_t kMaxUnderWay = 2;

  // max_choices: the longest list of choices.
  HostLogits(Device device, int64_t vocab_size, int64_t max_choices);

  // Rows of `logits` [R, vocab_size] in host memory, to be overwritten by the caller; valid until the next call. Waits
  // for the device.
  std::vector<std::span<float>> rows(Tensor logits, std::span<const int32_t> indices, Stream stream);
  // Queues the copy of `choices` [R] i32 to the host; take() waits for the oldest copy queued and gives it, valid until
  // as many more are queued as may be under way.
  void queue_choices(ConstTensor choices, const Backend& backend);
  std::span<const int32_t> take_choices();

 private:
  int64_t vocab_size_;
  Buffer rows_;  // pinned; empty on the CPU
  struct Choices {
    Buffer memory;  // pinned
    Event copied;
    int64_t count = 0;
  };
  std::vector<Choices> choices_;  // a ring; empty on the CPU
  size_t num_queued_ = 0;
  size_t num_taken_ = 0;
};

}  // namespace octet
