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

// Of a KV cache for one sequence of max_model_len tokens.
int64_t sequence_bytes(const MemoryNeeds& needs, int64_t max_model_len) {
  return (max_model_len + needs.block_size - 1) / needs.block_size * needs.bytes_per_block;
}

int64_t kv_bytes(const MemoryNeeds& needs, int64_t max_model_len) {
  return needs.kv_cache_memory_bytes.value_or(sequence_bytes(needs, max_model_len));
}

// The largest value in [1, limit] that fits, where smaller ones fit too; 0 when none does.
template <class Fits>
int64_t largest(int64_t limit, Fits&& fits) {
  int64_t good = 0, bad = limit + 1;
  while (bad - good > 1) {
    const int64_t middle = good + (bad - good) / 2;
    (fits(middle) ? good : bad) = middle;
  }
  return good;
}

// What the user can change, one at a time; `room` is what the weights leave.
std::string advice(const MemoryNeeds& needs, int64_t room) {
  if (room <= 0) {
    const std::optional<int64_t> fp8 = needs.fp8_weight_bytes ? needs.fp8_weight_bytes() : std::nullopt;
    if (!fp8) return "the weights alone do not fit";
    return fmt::format("the weights alone do not fit; with quantization \"fp8\" they need {}", readable(*fp8));
  }
  std::string text;
  const auto add = [&](std::string_view option, const std::string& most) {
    text += fmt::format("{}{} of at most {}", text.empty() ? "what would fit: " : ", or ", option, most);
  };
  const int64_t tokens = needs.max_num_batched_tokens, length = needs.max_model_len;
  const int64_t cache = room - needs.activation_bytes(tokens, length);
  if (needs.kv_cache_memory_bytes && cache >= sequence_bytes(needs, length))
    add("kv_cache_memory_bytes", readable(cache));
  const int64_t most_length = largest(
      length, [&](int64_t value) { return needs.activation_bytes(tokens, value) + kv_bytes(needs, value) <= room; });
  if (most_length >= 1) add("max_model_len", std::to_string(most_length));
  const int64_t most_tokens = largest(
      tokens, [&](int64_t value) { return needs.activation_bytes(value, length) + kv_bytes(needs, length) <= room; });
  if (most_tokens >= 1) add("max_num_batched_tokens", std::to_string(most_tokens));
  return text.empty() ? "a smaller model, or smaller max_model_len and max_num_batched_tokens together" : text;
}

}  // namespace

void check_memory(const MemoryNeeds& needs, int64_t available_bytes) {
  const int64_t activations = needs.activation_bytes(needs.max_num_batched_tokens, needs.max_model_len);
  const int64_t cache = kv_bytes(needs, needs.max_model_len);
  const int64_t sum = needs.weight_bytes + activations + cache;
  if (sum <= available_bytes) return;
  const std::string cache_size = needs.kv_cache_memory_bytes
                                     ? "kv_cache_memory_bytes"
                                     : fmt::format("one sequence of max_model_len {} tokens", needs.max_model_len);
  fail(ErrorCode::kMemory,
       "{}: {} are needed, {} are available: weights {} ({}), activations {} (max_num_batched_tokens {}), KV cache "
       "{} ({}); {}",
       needs.of, readable(sum), readable(available_bytes), readable(needs.weight_bytes), needs.weights,
       readable(activations), needs.max_num_batched_tokens, readable(cache), cache_size,
       advice(needs, available_bytes - needs.weight_bytes));
}

}  // namespace octet
