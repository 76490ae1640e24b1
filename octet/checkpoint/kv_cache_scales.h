// KvCacheScales: what a checkpoint's scales of the KV cache are, of all layers, read once for all models and ranks
// under whatever names the file has (quant/kv_scales.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "octet/checkpoint/safetensors.h"

namespace octet {

struct KvCacheScales {
  struct Layer {
    std::vector<float> k, v;  // one, or one for each KV head of the model; empty: not in the checkpoint
  };
  std::vector<Layer> layers;

  int64_t num_expected() const { return 2 * static_cast<int64_t>(layers.size()); }
  int64_t num_found() const;
  // Whether some layer has more than one scale for its keys or values.
  bool per_head() const;
};

// Throws Error{kModel} naming the tensor: a scale of a layer that the model has not, of a wrong dtype or shape, that is
// no finite number above 0, or that another tensor contradicts. Of `files` == nullptr (dummy weights): none are there.
KvCacheScales read_kv_cache_scales(const SafetensorsFolder* files, int64_t num_layers, int64_t num_kv_heads);

}  // namespace octet
