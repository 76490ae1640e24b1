// The ring matmuls' choices, for the benchmark that finds the best.
#pragma once

#include <span>

#include "octet/ops/ops.h"

namespace octet {

// How a CTA works: a stage of its ring is 16 * row_groups weight rows x `chunks` chunks of 128 bytes, with the same
// chunks of `tokens` activation rows; one warp for each row group and chunk.
struct RingConfig {
  int tokens;  // 1, 8, 16: the most that it takes
  int row_groups;
  int chunks;
  int stages;
};

struct RingPlan {
  int config = 0;    // index into ring_configs()
  int num_ctas = 0;  // the rows of the weight in so many shares
  int trigger = 0;   // stages that are still to be loaded when the next kernel may start
};

std::span<const RingConfig> ring_configs();
bool takes_ring_config(const MatmulOp& op, int config);
RingPlan plan_ring(const MatmulOp& op);
void run_ring(const MatmulOp& op, const Launch& launch, const RingPlan& plan);

}  // namespace octet
