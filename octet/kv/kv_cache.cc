#include "octet/kv/kv_cache.h"

#include <algorithm>

#include "octet/base/error.h"

namespace octet {

int64_t KvCacheLayout::bytes_per_token() const {
  int64_t bytes = 0;
  for (int64_t layer = 0; layer < num_layers; ++layer)
    bytes += num_planes() * num_kv_heads * head_dim * dtype_bytes(dtype_of(layer));
  return bytes;
}

KvCache::KvCache(Device device, const KvCacheLayout& layout, int64_t num_blocks)
    : layout_(layout),
      num_blocks_(num_blocks),
      // A sequence touches a few KiB in each of the planes k(layer), v(layer): 2 MiB pages would be zeroed for each.
      buffer_(device, num_blocks * layout.bytes_per_block(), "KV cache", Pages::kSmall),
      layers_(static_cast<size_t>(layout.num_layers)) {
  OCTET_CHECK(layout.layer_dtypes.empty() || layout.layer_dtypes.size() == layers_.size());
  int64_t offset = 0;
  for (int64_t layer = 0; layer < layout.num_layers; ++layer) {
    layers_[static_cast<size_t>(layer)].offset = offset;
    offset += layout.num_planes() * k(layer).num_bytes();
  }
}

const KvCache::Layer& KvCache::of(int64_t layer) const {
  OCTET_CHECK(layer >= 0 && layer < layout_.num_layers);
  return layers_[static_cast<size_t>(layer)];
}

Tensor KvCache::half(int64_t layer, int64_t which) const {
  const DType dtype = layout_.dtype_of(layer);
  const Shape shape{num_blocks_, layout_.num_kv_heads, layout_.block_size, layout_.head_dim};
  return buffer_.tensor(dtype, shape, of(layer).offset + which * shape.num_elements() * dtype_bytes(dtype));
}

ConstTensor KvCache::head_scale(const std::vector<float>& scale) const {
  if (scale.empty()) return {};
  return ConstTensor(reinterpret_cast<const std::byte*>(scale.data()), DType::kF32, Shape{layout_.num_kv_heads});
}

void KvCache::set_scales(int64_t layer, float k_scale, float v_scale) {
  OCTET_CHECK(layer >= 0 && layer < layout_.num_layers);
  Layer& to = layers_[static_cast<size_t>(layer)];
  to.k_scale = k_scale;
  to.v_scale = v_scale;
  to.k_head_scale.clear();
  to.v_head_scale.clear();
}

void KvCache::set_head_scales(int64_t layer, std::span<const float> k_scale, std::span<const float> v_scale) {
  const auto heads = static_cast<size_t>(layout_.num_kv_heads);
  OCTET_CHECK(k_scale.size() == heads && v_scale.size() == heads);
  set_scales(layer, *std::max_element(k_scale.begin(), k_scale.end()),
             *std::max_element(v_scale.begin(), v_scale.end()));
  layers_[static_cast<size_t>(layer)].k_head_scale.assign(k_scale.begin(), k_scale.end());
  layers_[static_cast<size_t>(layer)].v_head_scale.assign(v_scale.begin(), v_scale.end());
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
