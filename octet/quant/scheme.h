// QuantScheme: one way to store a linear's weight [N, K]. Two ends: the tensors it has on disk, and quantize /
// dequantize on the CPU, which is its oracle. Dialects (the quantization_config of AutoFP8, compressed-tensors, ...)
// only map to schemes.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "octet/base/thread_pool.h"
#include "octet/tensor/quant_format.h"
#include "octet/tensor/tensor.h"

namespace octet {

// What a tensor on disk is to its linear.
enum class WeightRole : uint8_t {
  kWeight,
  kWeightScale,
  kWeightZeroPoint,  // only zeros: older files have them beside symmetric weights
  kInputScale,
  kInputZeroPoint,
};

struct StoredTensor {
  // Appended to the module's name: what it is called, then its other names in the wild.
  std::vector<std::string_view> suffixes;
  WeightRole role = WeightRole::kWeight;
  std::vector<DType> dtypes;  // accepted on disk
  std::vector<Shape> shapes;  // accepted for this linear, e.g. [], [1], [N], [N, 1]; -1 never occurs
  enum class Presence : uint8_t { kRequired, kOptional } presence = Presence::kRequired;
};

// The scale of a quantised weight on disk, accepted in `shapes`, and the tensors of zeros that may be beside it.
StoredTensor stored_scale(std::vector<Shape> shapes);
StoredTensor stored_weight(DType dtype, int64_t n, int64_t k);
// What is on disk for static activations: input_scale, and input_zero_point where the format has them. For others the
// same as optional tensors, which are then not used.
std::vector<StoredTensor> stored_input_tensors(const QuantFormat& activation);

class QuantScheme {
 public:
  virtual ~QuantScheme() = default;
  virtual std::string_view name() const = 0;  // "fp8_channel", "bf16"
  // Formats in memory. weight_format of a fused linear may be finer (per tensor expands to per channel).
  virtual QuantFormat weight_format() const = 0;
  virtual QuantFormat activation_format() const = 0;  // not quantized() when activations stay as they are
  virtual std::vector<StoredTensor> stored_tensors(int64_t n, int64_t k) const = 0;

  // weight [N, K] f32|bf16|f16 -> out.data [N, K] and out.scale of out.format == weight_format(). Plain schemes
  // convert. scale = max(amax, floor) / 448 (127 for i8) and q = sat(w / scale), in F32. `amax`: one magnitude per
  // scale of out, for a matrix that is part of a larger one (other ranks hold other rows or columns); when empty they
  // are taken from `weight`, whose rows may be strided. A NaN stays NaN and does not count in amax.
  void quantize(ConstTensor weight, QuantTensor out, ThreadPool& threads, std::span<const float> amax = {}) const;
  // The real weight q * scale, rounded to out's dtype (f32, bf16 or f16): [N, K], any format.
  void dequantize(ConstQuantTensor weight, Tensor out, ThreadPool& threads) const;

 private:
  virtual void quantize_checked(ConstTensor weight, QuantTensor out, ThreadPool& threads,
                                std::span<const float> amax) const = 0;
};

// The floor of amax (AutoFP8's): a matrix or row of zeros gets scale 1e-12 / 448 and codes of zero, no division by
// zero.
inline constexpr float kMinWeightAmax = 1e-12f;
// That of blocks quantised while loading (vLLM's).
inline constexpr float kMinBlockAmax = 1e-4f;

// The largest magnitude of a matrix f32|bf16|f16; NaN does not count.
float weight_amax(ConstTensor weight, ThreadPool& threads);

// All schemes, in name order; nullptr for an unknown name.
std::span<const QuantScheme* const> quant_schemes();
const QuantScheme* find_scheme(std::string_view name);

}  // namespace octet
