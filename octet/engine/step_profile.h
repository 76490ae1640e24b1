// StepProfile: where the time of one step goes, kernel by kernel.
//
// Kernels of a step overlap (programmatic dependent launch), so a kernel's own start says little, and whatever watches
// them from inside delays them. What is measured is the step cut short: recorded up to each of its kernels in turn, and
// replayed. The time of a kernel is what it adds to the kernels before it: what it hides behind them counts as nothing,
// what it waits for counts in full. All times together are the step's. Kernels run as they always do; only the order
// of the step is relied on.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "octet/device/stream.h"
#include "octet/ops/op.h"

namespace octet {

// `batch_size` sequences, of each of which the last `num_new` of `num_tokens` tokens are computed: 1 in a decode step,
// all in a step of whole prompts.
struct ProfiledStep {
  int64_t batch_size = 0, num_tokens = 0, num_new = 1;
};

struct StepProfile {
  struct Row {  // kernels of one name, op and shape
    std::string kernel, op, shape;
    int64_t count = 0;
    double microseconds = 0;  // of all
    int64_t bytes = 0;        // of weights and of the KV cache that all read
  };
  std::vector<Row> rows;              // in the order of their first
  double start_us = 0;                // of the replay, before the first kernel's end
  double step_us = 0;                 // the whole step, alone on the device
  double steps_us = 0;                // a step among others without a host between them
  int64_t peak_bytes_per_second = 0;  // of the device's memory
  ProfiledStep step;
};

// `queue` queues the step on the stream, its kernels observed by the observer it is given.
StepProfile profile_step(Stream stream, const ProfiledStep& step, const std::function<void(LaunchObserver&)>& queue);

}  // namespace octet
