// What start-up will take, added up before it takes any: a model that does not fit is refused at once, with every
// category's need and with what would fit.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace octet {

// Of all ranks that share a memory.
struct MemoryNeeds {
  std::string of = "memory";  // which memory
  int64_t weight_bytes = 0;
  std::string weights;  // what they are held in: "bf16", "fp8_channel, quantised while loading"
  std::function<std::optional<int64_t>()> fp8_weight_bytes;  // nothing when they are quantised already
  // Grows with both.
  std::function<int64_t(int64_t max_num_batched_tokens, int64_t max_model_len)> activation_bytes;
  int64_t max_num_batched_tokens = 0;
  int64_t bytes_per_block = 0;  // of the KV cache
  int64_t block_size = 16;
  int64_t max_model_len = 0;
  std::optional<int64_t> kv_cache_memory_bytes;  // the user's choice
};

// Throws Error{kMemory} unless weights, activations and a KV cache for one sequence of max_model_len tokens (or of the
// size the user chose) fit into available_bytes together.
void check_memory(const MemoryNeeds& needs, int64_t available_bytes);

}  // namespace octet
