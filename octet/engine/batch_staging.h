// BatchStaging: the integers that a step's kernels read, its Batch and the rows whose logits are wanted. The host fills
// them in; on a GPU that is in pinned memory, from where they are copied to addresses that depend on the batch's size
// alone, so that a recorded graph can be replayed on them. One kernel does it, which also brings block tables up to
// date where they have changed: between two decode steps copy engines would take longer than what they copy.
#pragma once

#include <cstdint>
#include <span>

#include "octet/device/buffer.h"
#include "octet/device/stream.h"
#include "octet/engine/step_plan.h"
#include "octet/layers/step.h"
#include "octet/ops/ops.h"

namespace octet {

struct BatchLimits {
  int64_t max_tokens = 0;
  int64_t max_sequences = 0;
  int64_t max_blocks = 0;  // of a sequence
  int64_t block_size = 0;
};

struct StagedBatch {
  Batch batch;
  ConstTensor logit_rows;  // [R] i32
  ConstTensor draws;       // [R, 8] i32: a RowDraw for each row of logits
};

// Tokens of the batch that the step before chooses: token_ids[row] is choices[choice].
struct PendingTokens {
  struct Place {
    int32_t row, choice;
  };
  ConstTensor choices;  // [R] i32
  std::vector<Place> places;
};

class BatchStaging {
 public:
  BatchStaging(Device device, const BatchLimits& limits);
  static int64_t num_bytes(const BatchLimits& limits);  // on the device
  const BatchLimits& limits() const { return limits_; }

  // The plan's batch, followed by `num_padding` sequences of one token each: they write to no slot and read one that
  // holds anything; so does each one's row of logits, whose likeliest token is chosen. Every pending token
  // (kPendingToken) has its place in `pending`. The tensors are valid in the order of the backend's stream, until the
  // next call.
  StagedBatch stage(const StepPlan& plan, std::span<const int32_t> logit_rows, std::span<const RowDraw> draws,
                    int64_t num_padding, const Backend& backend, const PendingTokens& pending = {});

 private:
  struct Part {
    int32_t* host;
    Tensor tensor;  // on the device
  };

  Part next_part(int64_t count);
  int64_t fill_chunk(const StepPlan& plan, const StepChunk& chunk, int64_t row, const Part& token_ids,
                     const Part& positions, const Part& slots) const;
  IntMove fill_table(const StepPlan& plan, Stream stream);
  void copy_table(int64_t num_sequences, Stream stream);
  IntMove fill_pending(const PendingTokens& pending, const Tensor& token_ids);
  Tensor next_list(int64_t count);

  BatchLimits limits_;
  // On the CPU kernels read the host's memory and the device's is empty.
  Buffer host_, device_, host_table_, device_table_;
  Buffer lists_;  // of the host alone: places of what changes
  Event copied_;  // the host's memory may be filled again
  int64_t used_bytes_ = 0;
  int64_t used_list_bytes_ = 0;
  int64_t used_blocks_ = 0;  // the longest block table of this step
};

}  // namespace octet
