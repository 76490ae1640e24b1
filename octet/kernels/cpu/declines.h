// What the vector rows decline, compiled for every processor: it is asked before it is known what this one can do, so
// nothing of it may stand below a target pragma.
#pragma once

#include <string>

#include "octet/ops/ops.h"

namespace octet {

// An instruction set; empty where the processor has it.
struct NeedsAvx2 {
  static std::string missing(const CpuFeatures& features) { return features.avx2_fma ? "" : "needs AVX2+FMA"; }
};
struct NeedsAvx512 {
  static std::string missing(const CpuFeatures& features) { return features.avx512 ? "" : "needs AVX-512"; }
};

inline std::string output_declines(const QuantFormat& format) {
  if (format == plain_format(DType::kF32) || is_quantized_activation(format)) return {};
  return "out must be f32 or in an 8-bit format of quantize.h";
}

inline std::string shape_declines(const EmbeddingOp& op) {
  return op.out.dtype == DType::kF32 ? "" : "out must be f32";
}
inline std::string shape_declines(const MatmulOp& op) {
  const DType x = op.x.data.dtype;
  const DType w = op.weight.data.dtype;
  const Granularity gx = op.x.format.granularity;
  const Granularity gw = op.weight.format.granularity;
  if (op.out.dtype != DType::kF32) return "out must be f32";
  const bool plain_x = x == DType::kF32 && gx == Granularity::kNone;
  const bool f8_x = x == DType::kF8E4M3 && (gx == Granularity::kToken || gx == Granularity::kTensor);
  if (!plain_x && !f8_x) return "x must be f32 or f8_e4m3 per token or tensor";
  const bool plain_w = (w == DType::kF32 || w == DType::kBF16 || w == DType::kF16) && gw == Granularity::kNone;
  const bool f8_w = w == DType::kF8E4M3 && (gw == Granularity::kChannel || gw == Granularity::kTensor);
  if (!plain_w && !f8_w) return "weight must be f32, bf16, f16, or f8_e4m3 per tensor or channel";
  return {};
}
inline std::string shape_declines(const PagedAttentionOp& op) {
  if (op.q.dtype != DType::kF32 || op.out.dtype != DType::kF32) return "q and out must be f32";
  return op.quantized.data ? output_declines(op.quantized.format) : "";
}
inline std::string shape_declines(const QuantizeOp& op) {
  if (op.x.dtype != DType::kF32) return "x must be f32";
  return token_scale_given(op.out.format) ? std::string() : output_declines(op.out.format);
}
inline std::string shape_declines(const RmsNormOp& op) {
  if (op.residual.dtype != DType::kF32 || (op.x && op.x.dtype != DType::kF32)) return "x and residual must be f32";
  return output_declines(op.out.format);
}
inline std::string shape_declines(const RopeKvOp& op) { return op.qkv.dtype == DType::kF32 ? "" : "qkv must be f32"; }
inline std::string shape_declines(const SiluAndMulOp& op) {
  if (op.x.dtype != DType::kF32) return "x must be f32";
  return output_declines(op.out.format);
}

// declines() of the vector row of Op.
template <class Needs, class Op>
std::string vector_row_declines(const Op& op, const Launch& launch) {
  std::string missing = Needs::missing(launch.features);
  return missing.empty() ? shape_declines(op) : missing;
}

// Appends the vector row of Op.
template <class Needs, class Op>
void add_vector_row(KernelTable& table, std::string_view name, void (*run)(const Op&, const Launch&)) {
  table.of<Op>().push_back({.name = name, .declines = &vector_row_declines<Needs, Op>, .run = run});
}

}  // namespace octet
