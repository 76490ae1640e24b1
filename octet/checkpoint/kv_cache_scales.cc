#include "octet/checkpoint/kv_cache_scales.h"

#include <algorithm>
#include <array>

#include "octet/base/error.h"
#include "octet/checkpoint/stored_scales.h"
#include "octet/quant/kv_scales.h"

namespace octet {
namespace {

using Role = KvScaleName::Role;

class ScaleReader {
 public:
  ScaleReader(const SafetensorsFolder& files, int64_t num_layers, int64_t num_kv_heads)
      : files_(files), num_kv_heads_(num_kv_heads) {
    scales_.layers.resize(static_cast<size_t>(num_layers));
    names_.resize(static_cast<size_t>(num_layers));
  }

  KvCacheScales read() {
    for (const auto& [name, entry] : files_.entries()) {
      if (const auto scale = parse_kv_scale(name); scale && scale->role != Role::kNotUsed) take(name, entry, *scale);
    }
    // The scale for both is of what has none of its own.
    for (size_t layer = 0; layer < names_.size(); ++layer) {
      KvCacheScales::Layer& scales = scales_.layers[layer];
      if (scales.k.empty()) scales.k = names_[layer].scale_of_both;
      if (scales.v.empty()) scales.v = names_[layer].scale_of_both;
    }
    return std::move(scales_);
  }

 private:
  struct Names {  // of what a layer's scales were read from
    std::string k, v, both;
    std::vector<float> scale_of_both;
  };

  void take(const std::string& name, const TensorEntry& entry, const KvScaleName& scale) {
    const auto num_layers = static_cast<int64_t>(names_.size());
    if (scale.layer >= num_layers) {
      fail(ErrorCode::kModel, "{}: a scale of the KV cache of layer {}, config.json says {} layers (in {})", name,
           scale.layer, num_layers, files_.file_of(name));
    }
    const auto layer = static_cast<size_t>(scale.layer);
    Names& names = names_[layer];
    if (scale.role == Role::kKey) put(name, entry, scales_.layers[layer].k, names.k);
    if (scale.role == Role::kValue) put(name, entry, scales_.layers[layer].v, names.v);
    if (scale.role == Role::kKeyAndValue) put(name, entry, names.scale_of_both, names.both);
  }

  void put(const std::string& name, const TensorEntry& entry, std::vector<float>& to, std::string& from) const {
    check(name, entry);
    const std::vector<float> values = read_scales(files_, FoundTensor{name, files_.tensor(name)});
    if (!from.empty() && to != values)
      fail(ErrorCode::kModel, "{} and {}: expected one of them, or the same scales in both", from, name);
    to = values;
    from = name;
  }

  void check(const std::string& name, const TensorEntry& entry) const {
    const int64_t heads = num_kv_heads_;
    const std::array<Shape, 7> shapes = {Shape{},      Shape{1},        Shape{1, 1},       Shape{1, 1, 1},
                                         Shape{heads}, Shape{heads, 1}, Shape{heads, 1, 1}};
    if (std::find(shapes.begin(), shapes.end(), entry.shape) == shapes.end()) {
      fail(ErrorCode::kModel,
           "{}: shape {}, expected one scale ([] or [1]) or one for each KV head ([{}, 1, 1]) (in {})", name,
           entry.shape.to_string(), heads, files_.file_of(name));
    }
    constexpr std::array kTypes = {DType::kF32, DType::kBF16, DType::kF16};
    if (std::find(kTypes.begin(), kTypes.end(), entry.dtype) == kTypes.end())
      fail_dtype(files_, name, entry.dtype, "f32, bf16 or f16");
  }

  const SafetensorsFolder& files_;
  int64_t num_kv_heads_;
  KvCacheScales scales_;
  std::vector<Names> names_;
};

}  // namespace

int64_t KvCacheScales::num_found() const {
  int64_t count = 0;
  for (const Layer& layer : layers) count += (layer.k.empty() ? 0 : 1) + (layer.v.empty() ? 0 : 1);
  return count;
}

bool KvCacheScales::per_head() const {
  return std::any_of(layers.begin(), layers.end(), [](const Layer& l) { return l.k.size() > 1 || l.v.size() > 1; });
}

KvCacheScales read_kv_cache_scales(const SafetensorsFolder* files, int64_t num_layers, int64_t num_kv_heads) {
  if (files != nullptr) return ScaleReader(*files, num_layers, num_kv_heads).read();
  KvCacheScales none;
  none.layers.resize(static_cast<size_t>(num_layers));
  return none;
}

}  // namespace octet
