#include "octet/kv/kv_cache.h"

#include "octet/base/error.h"

namespace octet {

KvCache::KvCache(Device device, const KvCacheLayout& layout, int64_t num_blocks)
    : layout_(layout),
      num_blocks_(num_blocks),
      // A sequence touches a few KiB in each of the planes k(layer), v(layer): 2 MiB pages would be zeroed for each.
      buffer_(device, num_blocks * layout.bytes_per_block(), "KV cache", Pages::kSmall),
      scales_(static_cast<size_t>(2 * layout.num_layers), 1.0f) {}

Tensor KvCache::k(int64_t layer) const {
  OCTET_CHECK(layer >= 0 && layer < layout_.num_layers);
  const int64_t bytes = num_blocks_ * layout_.bytes_per_block() / (2 * layout_.num_layers);
  return buffer_.tensor(layout_.dtype, {num_blocks_, layout_.num_kv_heads, layout_.block_size, layout_.head_dim},
                        2 * layer * bytes);
}

Tensor KvCache::v(int64_t layer) const {
  OCTET_CHECK(layer >= 0 && layer < layout_.num_layers);
  const int64_t bytes = num_blocks_ * layout_.bytes_per_block() / (2 * layout_.num_layers);
  return buffer_.tensor(layout_.dtype, {num_blocks_, layout_.num_kv_heads, layout_.block_size, layout_.head_dim},
                        (2 * layer + 1) * bytes);
}

void KvCache::set_scales(int64_t layer, float k_scale, float v_scale) {
  OCTET_CHECK(layer >= 0 && layer < layout_.num_layers);
  scales_[static_cast<size_t>(2 * layer)] = k_scale;
  scales_[static_cast<size_t>(2 * layer + 1)] = v_scale;
}

DType parse_kv_cache_dtype(std::string_view text, DType model_dtype) {
  if (text == "auto") return model_dtype == DType::kF16 ? DType::kBF16 : model_dtype;
  if (text == "f32" || text == "float32" || text == "float") return DType::kF32;
  if (text == "bf16" || text == "bfloat16") return DType::kBF16;
  if (text == "fp8" || text == "fp8_e4m3") return DType::kF8E4M3;
  if (text == "fp8_e5m2") return DType::kF8E5M2;
  fail(ErrorCode::kUsage, "kv_cache_dtype: \"{}\" is not one of auto, float32, bfloat16, fp8, fp8_e4m3, fp8_e5m2",
       text);
}

}  // namespace octet
