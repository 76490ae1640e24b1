// BatchStaging: the integers that a step's kernels read, its Batch and the rows whose logits are wanted. The host fills
// them in; on a GPU that is in pinned memory, from where they are copied to addresses that depend on the batch's size
// alone, so that a recorded graph can be replayed on them.
#pragma once

#include <cstdint>
#include <span>

#include "octet/device/buffer.h"
#include "octet/device/stream.h"
#include "octet/engine/step_plan.h"
#include "octet/layers/step.h"

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
  Tensor token_ids;        // batch.token_ids, for pending tokens to be put in place
  ConstTensor draws;       // [R, 8] i32: a RowDraw for each row of logits
};

class BatchStaging {
 public:
  BatchStaging(Device device, const BatchLimits& limits);
  static int64_t num_bytes(const BatchLimits& limits);  // on the device

  // The plan's batch, followed by `num_padding` sequences of one token each: they write to no slot and read one that
  // holds anything; so does each one's row of logits, whose likeliest token is chosen. A pending token (kPendingToken)
  // is left for the caller to put in place. The tensors are valid in the order of the stream, until the next call.
  StagedBatch stage(const StepPlan& plan, std::span<const int32_t> logit_rows, std::span<const RowDraw> draws,
                    int64_t num_padding, Stream stream);

 private:
  struct Part {
    int32_t* host;
    Tensor tensor;  // on the device
  };

  Part next_part(int64_t count);
  int64_t fill_chunk(const StepPlan& plan, const StepChunk& chunk, int64_t row, const Part& token_ids,
                     const Part& positions, const Part& slots) const;
  void fill_table(const StepPlan& plan);
  void copy_to_device(int64_t num_sequences, Stream stream);

  BatchLimits limits_;
  // On the CPU kernels read the host's memory and the device's is empty.
  Buffer host_, device_, host_table_, device_table_;
  Event copied_;  // the host's memory may be filled again
  int64_t used_bytes_ = 0;
  int64_t used_blocks_ = 0;  // the longest block table of this step
};

}  // namespace octet
