// KvCacheChoice: what the KV cache stores and with which scales, from the user's options and what the checkpoint says.
#pragma once

#include <string>
#include <vector>

#include "octet/checkpoint/kv_cache_scales.h"
#include "octet/checkpoint/safetensors.h"
#include "octet/device/device.h"
#include "octet/kv/kv_cache.h"
#include "octet/models/model.h"
#include "octet/quant/quant_config.h"

namespace octet {

struct KvCacheOptions {
  std::string dtype = "auto";  // auto, f32, bf16, fp8 (= fp8_e4m3), fp8_e4m3, fp8_e5m2
  // Layers that stay in the plain dtype beside an 8-bit cache: their indices, and "sliding_window" for all that have
  // one.
  std::vector<std::string> skip_layers;
  bool calculate_scales = false;  // those that the checkpoint lacks, from the first tokens
};

class KvCacheChoice {
 public:
  // Where from the choice is made; all of it outlives the call only.
  struct Source {
    const ModelConfig& config;
    const SafetensorsFolder* files = nullptr;  // nullptr: dummy weights
    const QuantConfig& quant;
    DType model_dtype = DType::kBF16;
    Device device;
  };
  // "auto" is the model's dtype, unless a ModelOpt or compressed-tensors file asks for an 8-bit cache. Throws
  // Error{kUsage} for an option that octet does not know, Error{kUnsupported} for what the device's kernels do not
  // take, Error{kModel} for bad scales.
  KvCacheChoice(const KvCacheOptions& options, const Source& source);

  DType dtype() const { return dtype_; }
  bool in_8_bits() const { return dtype_bytes(dtype_) == 1; }
  // A model's layout with the chosen dtypes.
  KvCacheLayout layout(const Model& model, int64_t block_size) const;
  // Gives a rank's cache its scales.
  void set_scales(KvCache& cache) const;
  // Whether the first tokens give the scales that the checkpoint lacks, and how: from the largest magnitudes of each
  // layer's keys and values.
  bool calculates() const { return calculate_; }
  void set_calculated(KvCache& cache, const std::vector<float>& magnitudes) const;
  // "46 of 48 KV scales loaded, the others 1"; empty where there is nothing to say.
  std::string scales_description() const;

 private:
  void choose_dtype(const KvCacheOptions& options, const Source& source);
  void choose_skipped(const KvCacheOptions& options, int64_t num_layers);
  void choose_scales(const KvCacheOptions& options, const Source& source);
  bool skips(const KvCacheLayout& layout, int64_t layer) const;

  DType dtype_ = DType::kBF16;
  DType plain_dtype_ = DType::kBF16;
  std::vector<int64_t> skip_layers_;
  bool skip_sliding_ = false;
  bool calculate_ = false;
  KvCacheScales scales_;    // of all layers
  int64_t num_unused_ = 0;  // scales of the checkpoint that a cache in this dtype has no use for
};

// The largest magnitudes of what a cache of real numbers (f32, on the host) holds in `slots` [T] i32, of each layer's
// keys and then its values.
std::vector<float> kv_magnitudes(const KvCache& cache, ConstTensor slots);

}  // namespace octet
