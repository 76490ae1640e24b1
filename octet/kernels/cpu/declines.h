// What the vector rows decline, compiled for every processor: it is asked before it is known what this one can do, so
// nothing of it may stand below a target pragma.
#pragma once

#include <string>

#include "octet/ops/ops.h"

namespace octet {

// An instruction set; empty where the processor has it.
struct NeedsAvx2 {
  static constexpr int kLanes = 8;
  static std::string missing(const CpuFeatures& features) { return features.avx2_fma ? "" : "needs AVX2+FMA"; }
};
struct NeedsAvx512Vnni {
  static std::string missing(const CpuFeatures& features) { return features.avx512_vnni ? "" : "needs AVX-512 VNNI"; }
};
struct NeedsAvx512 {
  static constexpr int kLanes = 16;
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
  const bool whole_x = gx == Granularity::kToken || gx == Granularity::kTensor;
  const bool whole_w = gw == Granularity::kChannel || gw == Granularity::kTensor;
  if (w == DType::kI8) return plain_x && whole_w ? "" : "weight in i8 must be per channel or tensor, and x f32";
  const bool f8_x = x == DType::kF8E4M3 && (whole_x || gx == Granularity::kGroup);
  if (!plain_x && !f8_x) return "x must be f32 or f8_e4m3 per token, tensor or group";
  const bool plain_w = (w == DType::kF32 || w == DType::kBF16 || w == DType::kF16) && gw == Granularity::kNone;
  const bool f8_w = w == DType::kF8E4M3 && (whole_w || gw == Granularity::kGroup || gw == Granularity::kBlock);
  if (!plain_w && !f8_w) return "weight must be f32, bf16, f16, or f8_e4m3 per tensor, channel, group or block";
  if (gx == Granularity::kGroup && !f8_w) return "x in groups goes by f8_e4m3";
  return {};
}
// Columns whose sum of products stays in I32 whatever the codes and zero points: 255 * 128 * 2^16 < 2^31.
inline constexpr int64_t kMaxI8Columns = int64_t{1} << 16;

inline std::string matmul_i8_declines(const MatmulOp& op) {
  const Granularity gx = op.x.format.granularity;
  const Granularity gw = op.weight.format.granularity;
  if (op.out.dtype != DType::kF32) return "out must be f32";
  if (op.x.data.dtype != DType::kI8 || op.weight.data.dtype != DType::kI8) return "x and weight must be i8";
  if (gx != Granularity::kToken && gx != Granularity::kTensor) return "x must be per token or tensor";
  if (gw != Granularity::kChannel && gw != Granularity::kTensor) return "weight must be per channel or tensor";
  if (op.x.data.dim(1) > kMaxI8Columns) return fmt::format("takes at most {} columns", kMaxI8Columns);
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

// What else depends on the number of F32 lanes: groups of columns are decoded four vectors at a time.
template <class Op>
std::string lanes_decline(const Op&, int) {
  return {};
}
inline std::string lanes_decline(const MatmulOp& op, int lanes) {
  for (const QuantFormat* format : {&op.x.format, &op.weight.format}) {
    if (format->group_cols % (4 * lanes) != 0) return fmt::format("groups must be multiples of {} columns", 4 * lanes);
  }
  return {};
}

// declines() of the vector row of Op.
template <class Needs, class Op>
std::string vector_row_declines(const Op& op, const Launch& launch) {
  std::string reason = Needs::missing(launch.features);
  if (reason.empty()) reason = shape_declines(op);
  return reason.empty() ? lanes_decline(op, Needs::kLanes) : reason;
}

// Appends the vector row of Op.
template <class Needs, class Op>
void add_vector_row(KernelTable& table, std::string_view name, void (*run)(const Op&, const Launch&)) {
  table.of<Op>().push_back({.name = name, .declines = &vector_row_declines<Needs, Op>, .run = run});
}

template <class Needs>
std::string matmul_i8_row_declines(const MatmulOp& op, const Launch& launch) {
  std::string missing = Needs::missing(launch.features);
  return missing.empty() ? matmul_i8_declines(op) : missing;
}

// Appends the row of products of i8 by i8.
template <class Needs>
void add_matmul_i8_row(KernelTable& table, std::string_view name, void (*run)(const MatmulOp&, const Launch&)) {
  table.of<MatmulOp>().push_back({.name = name, .declines = &matmul_i8_row_declines<Needs>, .run = run});
}

}  // namespace octet
