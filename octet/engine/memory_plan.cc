#include "octet/engine/memory_plan.h"

#include <algorithm>

#include "octet/base/error.h"

namespace octet {
namespace {

std::string readable(int64_t bytes) {
  constexpr double kMiB = 0x1p20, kGiB = 0x1p30;
  const auto value = static_cast<double>(bytes);
  return value >= kGiB ? fmt::format("{:.2f} GiB", value / kGiB) : fmt::format("{:.1f} MiB", value / kMiB);
}

int64_t blocks_of_one_sequence(const MemoryNeeds& needs) {
  return (needs.max_model_len + needs.block_size - 1) / needs.block_size;
}

// The most tokens per step whose activations fit into `room`; 0 when not even one does.
int64_t most_tokens(const MemoryNeeds& needs, int64_t room) {
  int64_t fits = 0, fails = needs.max_num_batched_tokens + 1;
  while (fails - fits > 1) {
    const int64_t middle = fits + (fails - fits) / 2;
    (needs.activation_bytes(middle) <= room ? fits : fails) = middle;
  }
  return fits;
}

// What the user can change: `left` is what weights, and `free` what weights and activations leave.
std::string advice(const MemoryNeeds& needs, int64_t left, int64_t free, int64_t kv_bytes) {
  if (left <= 0) {
    const std::optional<int64_t> fp8 = needs.fp8_weight_bytes ? needs.fp8_weight_bytes() : std::nullopt;
    if (!fp8) return "the weights alone do not fit";
    return fmt::format("the weights alone do not fit; with quantization \"fp8\" they need {}", readable(*fp8));
  }
  std::string text;
  const auto add = [&](std::string_view option, const std::string& most) {
    text += fmt::format("{}{} of at most {}", text.empty() ? "what would fit: " : ", or ", option, most);
  };
  const int64_t num_blocks = free > 0 ? free / needs.bytes_per_block : 0;
  if (needs.kv_cache_memory_bytes && num_blocks >= blocks_of_one_sequence(needs)) {
    add("kv_cache_memory_bytes", readable(num_blocks * needs.bytes_per_block));
  } else if (!needs.kv_cache_memory_bytes && num_blocks >= 1) {
    add("max_model_len", std::to_string(num_blocks * needs.block_size));
  }
  if (const int64_t tokens = most_tokens(needs, left - kv_bytes); tokens >= 1) {
    add("max_num_batched_tokens", std::to_string(tokens));
  }
  return text.empty() ? "a smaller model, or a smaller max_model_len and max_num_batched_tokens together" : text;
}

}  // namespace

void check_memory(const MemoryNeeds& needs, int64_t available_bytes) {
  const int64_t activations = needs.activation_bytes(needs.max_num_batched_tokens);
  const int64_t one_sequence = blocks_of_one_sequence(needs) * needs.bytes_per_block;
  const int64_t kv_bytes = needs.kv_cache_memory_bytes.value_or(one_sequence);
  const int64_t left = available_bytes - needs.weight_bytes, free = left - activations;
  if (kv_bytes <= free) return;
  const std::string kv = needs.kv_cache_memory_bytes
                             ? "kv_cache_memory_bytes"
                             : fmt::format("one sequence of max_model_len {} tokens", needs.max_model_len);
  fail(ErrorCode::kMemory,
       "memory: {} are needed, {} are available: weights {} ({}), activations {} (max_num_batched_tokens {}), KV cache "
       "{} "
       "({}); {}",
       readable(needs.weight_bytes + activations + kv_bytes), readable(available_bytes), readable(needs.weight_bytes),
       needs.weights, readable(activations), needs.max_num_batched_tokens, readable(kv_bytes), kv,
       advice(needs, left, free, kv_bytes));
}

}  // namespace octet
