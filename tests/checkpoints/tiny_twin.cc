#include "tests/checkpoints/tiny_twin.h"

#include <algorithm>
#include <cmath>

namespace octet {
namespace {

float rounded_scale(float scale, DType dtype) {
  if (dtype == DType::kBF16) return to_f32(from_f32<BF16>(scale));
  if (dtype == DType::kF16) return to_f32(from_f32<F16>(scale));
  if (dtype == DType::kU8) return std::exp2(std::ceil(std::log2(scale)));
  return scale;
}

float code_of(float value, DType dtype) {
  if (dtype == DType::kI8) return std::clamp(std::nearbyint(value), -128.0f, 127.0f);
  return to_f32(from_f32<F8E4M3>(std::clamp(value, -448.0f, 448.0f)));
}

}  // namespace

Quantised quantise(const Matrix& matrix, const Tiling& tiling) {
  const int64_t n = matrix.shape[0], k = matrix.shape[1];
  const int64_t rows = tiling.rows > 0 ? tiling.rows : n, columns = tiling.columns > 0 ? tiling.columns : k;
  Quantised result{.dtype = tiling.dtype, .tiles = Shape{(n + rows - 1) / rows, (k + columns - 1) / columns}};
  result.codes.resize(matrix.values.size());
  result.real.resize(matrix.values.size());
  for (int64_t row = 0; row < n; row += rows) {
    for (int64_t column = 0; column < k; column += columns) {
      const auto each = [&](auto&& fn) {
        for (int64_t r = row; r < std::min(row + rows, n); ++r) {
          for (int64_t c = column; c < std::min(column + columns, k); ++c) fn(static_cast<size_t>(r * k + c));
        }
      };
      float amax = 0.0f;
      each([&](size_t i) { amax = std::max(amax, std::fabs(matrix.values[i])); });
      const float scale = rounded_scale(amax / (tiling.dtype == DType::kI8 ? 127.0f : 448.0f), tiling.scale_dtype);
      result.scales.push_back(scale);
      each([&](size_t i) {
        result.codes[i] = code_of(matrix.values[i] / scale, tiling.dtype);
        result.real[i] = result.codes[i] * scale;
      });
    }
  }
  return result;
}

TinyTwin::TinyTwin(const std::function<void(TinyLlama&)>& changes) {
  if (changes) changes(llama_);
  llama_.fill();
  // Parts of fused linears and experts differ, so that nobody can take one part's scale for another's.
  for (int64_t layer = 0; layer < llama_.layers; ++layer) {
    llama_.weight(layer_name(layer) + ".self_attn.k_proj").scale(2.0f);
    llama_.weight(layer_name(layer) + ".self_attn.v_proj").scale(0.5f);
    if (llama_.mixture != TinyLlama::Mixture::kNone) continue;
    llama_.weight(layer_name(layer) + ".mlp.gate_proj").scale(0.375f);
    llama_.weight(layer_name(layer) + ".mlp.up_proj").scale(3.0f);
  }
  for (const std::string& module : llama_.linears()) {
    const size_t at = module.find(".experts.");
    if (at == std::string::npos) continue;
    const bool up = module.ends_with(".up_proj") || module.ends_with(".w3");
    llama_.weight(module).scale((up ? 1.5f : 0.75f) * (1.0f + static_cast<float>(module[at + 9] - '0') / 4.0f));
  }
}

void TinyTwin::add(const std::string& module, const Tiling& tiling, const std::string& scale_name, Shape scale_shape) {
  const Matrix& matrix = llama_.weight(module);
  Quantised quantised = quantise(matrix, tiling);
  checkpoint_.add(module + ".weight", quantised.dtype, matrix.shape, quantised.codes);
  if (tiling.scale_dtype == DType::kU8) {
    for (float& scale : quantised.scales) scale = 127.0f + std::log2(scale);
  }
  checkpoint_.add(module + "." + scale_name, tiling.scale_dtype, scale_shape, quantised.scales);
  real_.emplace(module, std::move(quantised.real));
}

void TinyTwin::add(const std::string& module, const Tiling& tiling, const std::string& scale_name) {
  add(module, tiling, scale_name, quantise(llama_.weight(module), tiling).tiles);
}

void TinyTwin::write(const TestFolder& folder) {
  std::vector<std::string> written;
  for (const auto& [module, values] : real_) written.push_back(module);
  llama_.add_plain(checkpoint_, written);
  llama_.write(folder, checkpoint_);
}

void TinyTwin::write_real(const TestFolder& folder) const {
  TinyLlama plain = llama_;
  plain.config.erase("quantization_config");
  plain.config.erase("compression_config");
  for (const auto& [module, values] : real_) plain.weight(module).values = values;
  TestCheckpoint checkpoint;
  plain.add_plain(checkpoint);
  plain.write(folder, checkpoint);
}

}  // namespace octet
