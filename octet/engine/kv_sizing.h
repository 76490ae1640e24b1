// How large the KV cache shall be.
#pragma once

#include <cstdint>
#include <optional>

namespace octet {

struct KvBudget {
  int64_t bytes_per_block = 0;  // of all ranks together
  int64_t block_size = 16;
  int64_t max_model_len = 0;
  int64_t max_num_seqs = 0;
  int64_t available_bytes = 0;             // that can still be allocated besides weights and activations
  std::optional<int64_t> requested_bytes;  // the user's choice
  // Without one: a modest part of a memory that others use too, or all that is available.
  enum class Unasked : uint8_t { kModest, kAll } unasked = Unasked::kModest;
};

// The number of blocks. At least one sequence of max_model_len tokens; not more than max_num_seqs such sequences can
// use; kModest is about 4 GiB or a quarter of the available memory, whichever is less. Pages of the CPU are committed
// when first written, so a large cache costs nothing before it is used. Throws Error{kMemory} naming what is
// needed, what there is, and the largest max_model_len that would fit.
int64_t num_kv_blocks(const KvBudget& budget);

}  // namespace octet
