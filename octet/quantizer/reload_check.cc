#include "octet/quantizer/reload_check.h"

#include <cmath>
#include <cstring>
#include <set>
#include <span>
#include <vector>

#include "octet/base/error.h"
#include "octet/quant/quant_config.h"
#include "octet/quantizer/quantize_linears.h"

namespace octet {
namespace {

// sum of squares lost by 8 bits in rows that are sampled: 7e-4 for E4M3, less for most INT8; what is above this is no
// rounding to the nearest.
constexpr double kMostError = 0.05;
// Rounding that makes up for its errors moves weights of channels that say the same far from where they were.
constexpr double kMostMovedError = 4.0;
constexpr int64_t kRowsApart = 100;  // one row in a hundred

void check_entries(const SafetensorsFolder& written, const QuantizePlan& plan) {
  for (const TensorEntry& entry : plan.entries) {
    const TensorEntry* found = written.find(entry.name);
    if (found == nullptr || found->dtype != entry.dtype || found->shape != entry.shape)
      fail(ErrorCode::kIo, "{}: is not in the files that were written, or not as it was written", entry.name);
  }
}

// The scales of a tensor, positive and finite. A copy: a file's tensors lie at any address.
std::vector<float> read_scales(const SafetensorsFolder& written, const std::string& name) {
  const ConstTensor stored = written.tensor(name);
  std::vector<float> scales(static_cast<size_t>(stored.num_elements()));
  std::memcpy(scales.data(), stored.bytes, scales.size() * sizeof(float));
  for (const float scale : scales) {
    if (!std::isfinite(scale) || scale <= 0.0f)
      fail(ErrorCode::kInternal, "{}: a scale of {} was written", name, scale);
  }
  return scales;
}

// Those besides the weights' own.
void check_other_scales(const SafetensorsFolder& written, const QuantizePlan& plan) {
  for (const PlannedUnit& unit : plan.units) {
    for (const std::string& name : plan.written_by(unit)) {
      if (name.ends_with(".input_scale") || name.ends_with(".k_scale") || name.ends_with(".v_scale"))
        read_scales(written, name);
    }
  }
}

// Blocks of rows, so that rows of scales stay whole.
void check_rows(const PlannedLinear& part, const QuantFormat& format, std::span<const float> numbers,
                const SafetensorsFolder& source, const SafetensorsFolder& written, double most_error,
                ThreadPool& threads) {
  const ConstTensor scales(std::as_bytes(numbers).data(), DType::kF32, format.scale_shape(part.n, part.k));
  const ConstTensor weight = source.tensor(part.weight());
  if (reinterpret_cast<uintptr_t>(weight.bytes) % static_cast<uintptr_t>(dtype_bytes(weight.dtype)) != 0) return;
  const ConstTensor codes = written.tensor(part.weight());
  const int64_t at_once = format.granularity == Granularity::kBlock ? format.group_rows : 1;
  for (int64_t row = 0; row < part.n; row += at_once * kRowsApart) {
    const int64_t rows = std::min(at_once, part.n - row);
    const bool shared = format.granularity == Granularity::kTensor;
    const ConstQuantTensor quantised(codes.rows(row, rows), shared ? scales : scales.rows(row / at_once, 1), format);
    const double error = weight_error(weight.rows(row, rows), quantised, threads);
    if (!(error < most_error)) {
      fail(ErrorCode::kInternal, "{}: row {} was written with a squared error of {:.2g}, expected less than {}",
           part.weight(), row, error, most_error);
    }
  }
  source.drop_pages(part.weight());
}

}  // namespace

void check_written(const std::string& folder, const Json& quantization_config, const QuantizePlan& plan,
                   const SafetensorsFolder& source, std::span<const LinearFigures> linears, ThreadPool& threads) {
  const double most_error = needs_hessian(plan.recipe) ? kMostMovedError : kMostError;
  std::set<std::string_view> folded;
  for (const LinearFigures& figures : linears) {
    if (figures.folded) folded.insert(figures.module);
  }
  const SafetensorsFolder written(folder);
  check_entries(written, plan);
  check_other_scales(written, plan);
  const QuantConfig config(&quantization_config, {}, DType::kBF16);
  for (const PlannedUnit& unit : plan.units) {
    for (const PlannedLinear& part : unit.parts) {
      const QuantFormat format = unit.scheme.weights->weight_format();
      const LinearScheme scheme = config.scheme_for(part.module, format.dtype);
      if (scheme.on_disk != unit.scheme.weights || scheme.activation != unit.scheme.activation)
        fail(ErrorCode::kInternal, "{}: the written configuration does not say that it is {}", part.module,
             unit.scheme.weights->name());
      const std::vector<float> scales = read_scales(written, plan.scale_name(part));
      if (!folded.contains(part.module)) check_rows(part, format, scales, source, written, most_error, threads);
    }
  }
  for (const std::string& module : plan.quant.ignore) {
    if (config.scheme_for(module, DType::kBF16).on_disk->weight_format().quantized())
      fail(ErrorCode::kInternal, "{}: the written configuration says that it is quantised", module);
  }
}

}  // namespace octet
