// KvCache: the storage of keys and values of one rank: per layer two tensors [num_blocks, num_kv_heads, block_size,
// head_dim]. Which block belongs to whom is BlockManager's business.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "octet/device/buffer.h"

namespace octet {

struct KvCacheLayout {
  int64_t num_layers = 0;
  int64_t num_kv_heads = 0;  // of this rank
  int64_t head_dim = 0;
  int64_t block_size = 16;  // tokens
  DType dtype = DType::kBF16;

  int64_t bytes_per_token() const { return 2 * num_layers * num_kv_heads * head_dim * dtype_bytes(dtype); }
  int64_t bytes_per_block() const { return bytes_per_token() * block_size; }
};

class KvCache {
 public:
  KvCache(Device device, const KvCacheLayout& layout, int64_t num_blocks);

  const KvCacheLayout& layout() const { return layout_; }
  int64_t num_blocks() const { return num_blocks_; }
  Tensor k(int64_t layer) const;
  Tensor v(int64_t layer) const;
  // real = stored * scale; 1 unless the checkpoint says otherwise.
  float k_scale(int64_t layer) const { return scales_[static_cast<size_t>(2 * layer)]; }
  float v_scale(int64_t layer) const { return scales_[static_cast<size_t>(2 * layer + 1)]; }
  void set_scales(int64_t layer, float k_scale, float v_scale);

 private:
  KvCacheLayout layout_;
  int64_t num_blocks_ = 0;
  Buffer buffer_;
  std::vector<float> scales_;
};

// "auto" (the model's dtype), "f32"/"float32", "bf16"/"bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2". Throws Error{kUsage}.
DType parse_kv_cache_dtype(std::string_view text, DType model_dtype);

}  // namespace octet
