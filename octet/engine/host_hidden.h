// HostHidden: brings those rows of a step's hidden states to the host, as F32, that requests want to see
// (Request::on_hidden).
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "octet/device/buffer.h"
#include "octet/device/stream.h"
#include "octet/engine/step_plan.h"

namespace octet {

class HostHidden {
 public:
  HostHidden(Device device, int64_t hidden_size);

  // Calls on_hidden for the rows that `chunks` score. `hidden` [T, hidden_size]: after the final norm, one row a token,
  // in the chunks' order. Waits for the device where there is something to show.
  void show(std::span<const StepChunk> chunks, ConstTensor hidden, Stream stream,
            const std::function<const Request&(SequenceId)>& request_of);

 private:
  void show_rows(ConstTensor rows, int64_t position, Stream stream, const Request& request);

  // Rows brought at once, at most.
  static constexpr int64_t kMaxRows = 64;

  int64_t hidden_size_;
  Buffer staging_;  // pinned; empty on the CPU
  std::vector<float> row_;
};

}  // namespace octet
