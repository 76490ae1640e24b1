// KvCache: the storage of keys and values of one rank: per layer two tensors [num_blocks, num_kv_heads, block_size,
// head_dim]. Which block belongs to whom is BlockManager's business.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "octet/device/buffer.h"

namespace octet {

struct KvCacheLayout {
  int64_t num_layers = 0;
  int64_t num_kv_heads = 0;  // of this rank
  int64_t head_dim = 0;
  int64_t first_kv_head = 0;             // of the model's
  std::vector<int64_t> sliding_windows;  // of each layer, 0 for none; empty: no layer has one
  int64_t block_size = 16;               // tokens
  // Latent attention: a token's value is the beginning of its key, which is all that is stored. v() is k().
  bool values_in_keys = false;
  DType dtype = DType::kBF16;
  std::vector<DType> layer_dtypes;  // where layers differ; empty: all have `dtype`

  DType dtype_of(int64_t layer) const {
    return layer_dtypes.empty() ? dtype : layer_dtypes[static_cast<size_t>(layer)];
  }
  int64_t num_planes() const { return values_in_keys ? 1 : 2; }  // of a layer
  int64_t bytes_per_token() const;
  int64_t bytes_per_block() const { return bytes_per_token() * block_size; }
};

class KvCache {
 public:
  KvCache(Device device, const KvCacheLayout& layout, int64_t num_blocks);

  const KvCacheLayout& layout() const { return layout_; }
  int64_t num_blocks() const { return num_blocks_; }
  Tensor k(int64_t layer) const { return half(layer, 0); }
  Tensor v(int64_t layer) const { return half(layer, layout_.num_planes() - 1); }
  // real = stored * scale; 1 unless somebody says otherwise. Of a layer with a scale for each head these are the
  // largest.
  float k_scale(int64_t layer) const { return of(layer).k_scale; }
  float v_scale(int64_t layer) const { return of(layer).v_scale; }
  // f32 [num_kv_heads], on the host: a scale for each head in place of the layer's; or empty.
  ConstTensor k_head_scale(int64_t layer) const { return head_scale(of(layer).k_head_scale); }
  ConstTensor v_head_scale(int64_t layer) const { return head_scale(of(layer).v_head_scale); }
  void set_scales(int64_t layer, float k_scale, float v_scale);
  // One for each head of this rank.
  void set_head_scales(int64_t layer, std::span<const float> k_scale, std::span<const float> v_scale);

 private:
  struct Layer {
    int64_t offset = 0;  // of its keys, in bytes; the values follow
    float k_scale = 1.0f, v_scale = 1.0f;
    std::vector<float> k_head_scale, v_head_scale;
  };

  const Layer& of(int64_t layer) const;
  Tensor half(int64_t layer, int64_t which) const;
  ConstTensor head_scale(const std::vector<float>& scale) const;

  KvCacheLayout layout_;
  int64_t num_blocks_ = 0;
  Buffer buffer_;
  std::vector<Layer> layers_;
};

// "auto" (the model's dtype), "f32"/"float32", "bf16"/"bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2". Throws Error{kUsage}.
DType parse_kv_cache_dtype(std::string_view text, DType model_dtype);

}  // namespace octet
