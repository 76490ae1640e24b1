// DecodeGraphs: recorded steps for the batches of which most steps of a busy engine consist: one token and one row of
// logits per sequence. There is one for each of some batch sizes; smaller batches are padded to the next. A replay
// costs the host one call instead of one per kernel.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "octet/device/graph.h"
#include "octet/tensor/tensor.h"

namespace octet {

// What a step leaves on the device.
struct RowOutputs {
  Tensor logits;   // [R, vocab_size] f32
  Tensor choices;  // [R] i32, the token drawn of each row (SampleOp); empty where the host looks for itself
};

class DecodeGraphs {
 public:
  // 1, 2, 4, then every 8 up to 128, then every 64; `most` is the last.
  static std::vector<int64_t> batch_sizes(int64_t most);

  struct Recorded {
    int64_t batch_size = 0;
    Graph graph;
    RowOutputs outputs;
  };

  // `prepare(batch_size)` makes a batch of that size, whose tensors have the addresses they will have at every replay,
  // and returns what queues its step. That is called twice: to run, which loads the kernels, and to be recorded.
  // `meet` waits for the other ranks: while one records, kernels of none may wait for another's, since what recording
  // asks of the driver may wait for them.
  using QueueStep = std::function<RowOutputs()>;
  void record(Stream stream, int64_t most, const std::function<QueueStep(int64_t batch_size)>& prepare,
              const std::function<void()>& meet);

  // The smallest recorded batch of at least `num_sequences`; nullptr when there is none.
  const Recorded* find(int64_t num_sequences) const;
  int64_t largest() const { return recorded_.empty() ? 0 : recorded_.back().batch_size; }
  int64_t count() const { return static_cast<int64_t>(recorded_.size()); }

 private:
  std::vector<Recorded> recorded_;  // by size
};

}  // namespace octet
