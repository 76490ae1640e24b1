#include "octet/engine/kv_choice.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "octet/base/error.h"
#include "octet/base/log.h"
#include "octet/quant/kv_scales.h"

namespace octet {
namespace {

constexpr std::string_view kSlidingWindow = "sliding_window";
// Where the largest of the first tokens' magnitudes come to lie, of 448: later tokens have larger ones (as in vLLM).
constexpr float kKeyRange = 200.0f;
constexpr float kValueRange = 100.0f;

// Values of the heads that a rank holds.
std::vector<float> of_rank(const std::vector<float>& scales, const KvCacheLayout& layout) {
  if (scales.empty()) return {1.0f};
  if (scales.size() == 1) return scales;
  const auto first = scales.begin() + layout.first_kv_head;
  return {first, first + layout.num_kv_heads};
}

int64_t count_scales(const SafetensorsFolder& files) {
  return std::count_if(files.entries().begin(), files.entries().end(), [](const auto& entry) {
    const auto name = parse_kv_scale(entry.first);
    return name && name->role != KvScaleName::Role::kNotUsed;
  });
}

void set_layer(KvCache& cache, int64_t layer, std::vector<float> k, std::vector<float> v) {
  if (k.size() == 1 && v.size() == 1) return cache.set_scales(layer, k[0], v[0]);
  const auto heads = static_cast<size_t>(cache.layout().num_kv_heads);
  if (k.size() != heads) k.assign(heads, k[0]);
  if (v.size() != heads) v.assign(heads, v[0]);
  cache.set_head_scales(layer, k, v);
}

}  // namespace

KvCacheChoice::KvCacheChoice(const KvCacheOptions& options, const Source& source) {
  choose_dtype(options, source);
  choose_skipped(options, source.config.num_hidden_layers);
  choose_scales(options, source);
}

void KvCacheChoice::choose_dtype(const KvCacheOptions& options, const Source& source) {
  plain_dtype_ = parse_kv_cache_dtype("auto", source.model_dtype);
  dtype_ = parse_kv_cache_dtype(options.dtype, source.model_dtype);
  const std::optional<KvCacheQuant>& stored = source.quant.kv_cache();
  if (options.dtype == "auto" && stored && stored->by_default) dtype_ = stored->dtype;
}

void KvCacheChoice::choose_skipped(const KvCacheOptions& options, int64_t num_layers) {
  for (const std::string& entry : options.skip_layers) {
    if (entry == kSlidingWindow) {
      skip_sliding_ = true;
      continue;
    }
    int64_t layer = -1;
    const auto [end, error] = std::from_chars(entry.data(), entry.data() + entry.size(), layer);
    if (error != std::errc() || end != entry.data() + entry.size() || layer < 0 || layer >= num_layers) {
      fail(ErrorCode::kUsage, "kv_cache_dtype_skip_layers: expected layers from 0 to {} or \"{}\", found \"{}\"",
           num_layers - 1, kSlidingWindow, entry);
    }
    skip_layers_.push_back(layer);
  }
}

void KvCacheChoice::choose_scales(const KvCacheOptions& options, const Source& source) {
  const int64_t num_layers = source.config.num_hidden_layers;
  scales_.layers.resize(static_cast<size_t>(num_layers));
  if (dtype_ ==
      DType::kF8E4M3)  // E5M2 has the range of 16-bit types: it needs none, and files' scales are made for 448
    scales_ = read_kv_cache_scales(source.files, num_layers, source.config.num_key_value_heads);
  const bool gpu = source.device.kind == DeviceKind::kCuda;
  if (gpu && scales_.per_head()) {
    if (options.dtype != "auto") {
      fail(ErrorCode::kUnsupported,
           "kv_cache_dtype \"{}\": the checkpoint has a KV scale for each head, {} takes one for each layer; "
           "\"bfloat16\" "
           "runs",
           options.dtype, device_name(source.device));
    }
    log_warning("the checkpoint has a KV scale for each head, {} takes one for each layer: the KV cache is {}",
                device_name(source.device), dtype_name(plain_dtype_));
    dtype_ = plain_dtype_;
    scales_ = read_kv_cache_scales(nullptr, num_layers, 0);
  }
  if (dtype_ != DType::kF8E4M3 && source.files != nullptr) num_unused_ = count_scales(*source.files);
  const int64_t num_expected = scales_.num_expected();
  calculate_ = options.calculate_scales && dtype_ == DType::kF8E4M3 && scales_.num_found() < num_expected;
  if (gpu && calculate_) {
    fail(ErrorCode::kUnsupported, "calculate_kv_scales: on {} scales are part of recorded steps and cannot change",
         device_name(source.device));
  }
  if (dtype_ == DType::kF8E4M3 && !calculate_ && source.files != nullptr && scales_.num_found() < num_expected) {
    warn_once(fmt::format("the KV cache is in 8 bits, and the checkpoint has {} of its {} scales: 1 is used for {}",
                          scales_.num_found(), num_expected, scales_.num_found() == 0 ? "all" : "the others"));
  }
}

bool KvCacheChoice::skips(const KvCacheLayout& layout, int64_t layer) const {
  if (std::find(skip_layers_.begin(), skip_layers_.end(), layer) != skip_layers_.end()) return true;
  return skip_sliding_ && !layout.sliding_windows.empty() && layout.sliding_windows[static_cast<size_t>(layer)] > 0;
}

KvCacheLayout KvCacheChoice::layout(const Model& model, int64_t block_size) const {
  KvCacheLayout layout = model.kv_layout();
  layout.block_size = block_size;
  layout.dtype = dtype_;
  std::vector<DType> dtypes(static_cast<size_t>(layout.num_layers), dtype_);
  for (int64_t layer = 0; layer < layout.num_layers && in_8_bits(); ++layer) {
    if (skips(layout, layer)) dtypes[static_cast<size_t>(layer)] = plain_dtype_;
  }
  if (std::count(dtypes.begin(), dtypes.end(), dtype_) < layout.num_layers) layout.layer_dtypes = std::move(dtypes);
  return layout;
}

void KvCacheChoice::set_scales(KvCache& cache) const {
  const KvCacheLayout& layout = cache.layout();
  for (int64_t layer = 0; layer < layout.num_layers; ++layer) {
    if (layout.dtype_of(layer) != DType::kF8E4M3) continue;
    const KvCacheScales::Layer& scales = scales_.layers.at(static_cast<size_t>(layer));
    set_layer(cache, layer, of_rank(scales.k, layout), of_rank(scales.v, layout));
  }
}

void KvCacheChoice::set_calculated(KvCache& cache, const std::vector<float>& magnitudes) const {
  const KvCacheLayout& layout = cache.layout();
  const auto scale = [](float magnitude, float range) { return magnitude > 0.0f ? magnitude / range : 1.0f; };
  for (int64_t layer = 0; layer < layout.num_layers; ++layer) {
    if (layout.dtype_of(layer) != DType::kF8E4M3) continue;
    const KvCacheScales::Layer& scales = scales_.layers.at(static_cast<size_t>(layer));
    const float k = magnitudes.at(static_cast<size_t>(2 * layer)),
                v = magnitudes.at(static_cast<size_t>(2 * layer + 1));
    set_layer(cache, layer, scales.k.empty() ? std::vector{scale(k, kKeyRange)} : of_rank(scales.k, layout),
              scales.v.empty() ? std::vector{scale(v, kValueRange)} : of_rank(scales.v, layout));
  }
}

std::string KvCacheChoice::scales_description() const {
  if (num_unused_ > 0)
    return fmt::format("{} KV scales of the checkpoint are for kv_cache_dtype fp8 and not used", num_unused_);
  if (dtype_ != DType::kF8E4M3) return "";
  const std::string loaded = fmt::format("{} of {} KV scales loaded", scales_.num_found(), scales_.num_expected());
  if (scales_.num_found() == scales_.num_expected()) return loaded;
  return loaded + (calculate_ ? ", the others from the first tokens" : ", the others 1");
}

std::vector<float> kv_magnitudes(const KvCache& cache, ConstTensor slots) {
  const KvCacheLayout& layout = cache.layout();
  std::vector<float> magnitudes;
  for (int64_t plane = 0; plane < 2 * layout.num_layers; ++plane) {
    const Tensor values = plane % 2 == 0 ? cache.k(plane / 2) : cache.v(plane / 2);
    float largest = 0.0f;
    for (int64_t t = 0; t < slots.num_elements(); ++t) {
      const int64_t slot = slots.data<int32_t>()[t];
      for (int64_t head = 0; head < layout.num_kv_heads && slot >= 0; ++head) {
        const float* from = values.row<float>(slot / layout.block_size) +
                            (head * layout.block_size + slot % layout.block_size) * layout.head_dim;
        for (int64_t i = 0; i < layout.head_dim; ++i) largest = std::max(largest, std::fabs(from[i]));
      }
    }
    magnitudes.push_back(largest);
  }
  return magnitudes;
}

}  // namespace octet
