// Matrix product for every number of tokens, weights decoded in registers.
//
// Order of K: each output (t, n) has kLanes sums; each adds its products in one order with FMA, and then they are added
// in the tree of V::sum4. Sum l takes k = l, l + kLanes, ...; with FP8 weights, whose codes are decoded four to a lane
// (V::load_quads), k = 4 l .. 4 l + 3, then the same kLanes * 4 further on, ... No tiling, thread count or T changes
// that, so a row's bits depend on its own x only. With few tokens (matmul_direct.h) and some (matmul_rows.h) the sums
// are the lanes of a vector, with many (matmul_panel.h) lanes are rows of the weight, and the sums come one after the
// other.
//
// FP8 weights enter the FMA as value * 2^-120 (their bits moved to F32's place) while there are few tokens, so x is
// staged times 2^64 and the sum taken times 2^56: subnormal codes come out exact and no product drops below F32's
// range. With more tokens the panel holds true values (an FMA with a subnormal input costs about 100 cycles, the panel
// pays it once). Powers of two change no mantissa: both give the same bits as long as sums of x * q stay below 2^60.
// FP8 weights with a scale per group or block: the sum is multiplied by it at the end of each group, into a second one
// (an FMA), and starts from 0 again. x in groups is multiplied by its scales as it is staged.
// E4M3 NaN codes in weights are not looked for here (they read as +-480): loading refuses them.
#pragma once

#include <algorithm>
#include <string>

#include "octet/kernels/cpu/matmul_direct.h"
#include "octet/kernels/cpu/matmul_panel.h"
#include "octet/kernels/cpu/matmul_parts.h"
#include "octet/kernels/cpu/matmul_rows.h"
#include "octet/kernels/cpu/split.h"
#include "octet/ops/ops.h"

namespace octet {

// What does not depend on how x is staged.
template <class V, class W>
MatmulView<W> matmul_view(const MatmulOp& op, int64_t first, float quads_factor) {
  MatmulView<W> m{};
  m.weight = reinterpret_cast<const W*>(op.weight.data.bytes);
  m.num_k = op.x.data.dim(1);
  m.out = op.out.row<float>(first);
  m.out_stride = op.out.row_stride;
  m.sum_factor = WeightLoad<V, W>::kQuads ? quads_factor : 1.0f;
  m.scales = output_scales(op, first);
  m.groups = group_scales(op.weight);
  return m;
}

template <class V, class W>
inline constexpr float kStageFactor = WeightLoad<V, W>::kQuads ? 0x1p64f : 1.0f;

// All of at most kMostDirectTokens tokens.
template <class V, class W>
void run_direct_matmul(const MatmulOp& op, const Launch& launch) {
  const int64_t num_k = op.x.data.dim(1), num_tokens = op.x.data.dim(0);
  MatmulView<W> m = matmul_view<V, W>(op, 0, 0x1p56f);
  if (!must_stage<V>(op)) {
    m.x = op.x.data.row<float>(0);
    m.x_stride = op.x.data.row_stride;
  } else {
    m.x_stride = staged_stride(WeightLoad<V, W>::padded(num_k));
    auto* staged = reinterpret_cast<float*>(launch.scratch->get(0, num_tokens * m.x_stride * int64_t{sizeof(float)}));
    stage_rows<V, W>(op, kStageFactor<V, W>, 0, num_tokens, staged, m.x_stride);
    m.x = staged;
  }
  const int64_t grain = direct_grain(op);
  StealingShares shares(op.weight.data.dim(0), grain, launch.threads->num_threads());
  const ReadAhead::Matrix* matrix = begin_read_ahead(op, launch, grain);
  launch.threads->run([&](int thread) {
    shares.run(thread, [&](int64_t begin, int64_t end) { run_direct<V>(m, num_tokens, begin, end); });
    if (matrix) launch.read_ahead->end(matrix, thread);
  });
}

// All of at most kMostRowTokens tokens.
template <class V, class W>
void run_rows_matmul(const MatmulOp& op, const Launch& launch) {
  const int64_t num_k = op.x.data.dim(1), num_tokens = op.x.data.dim(0);
  const bool staged = must_stage<V>(op);
  const int64_t stride = staged_stride(WeightLoad<V, W>::padded(num_k));
  const int64_t staged_bytes = staged ? num_tokens * stride * int64_t{sizeof(float)} : 0;
  const RowPlan<V, W> plan(num_k, num_tokens, op.weight.format.group_cols);
  // Thread 0's buffer: the staged x of all threads, then its own panel.
  std::byte* scratch = launch.scratch->get(0, staged_bytes + plan.scratch_bytes());
  MatmulView<W> m = matmul_view<V, W>(op, 0, 0x1p-64f);
  m.x = staged ? reinterpret_cast<float*>(scratch) : op.x.data.row<float>(0);
  m.x_stride = staged ? stride : op.x.data.row_stride;
  if (staged) {
    stage_tokens<V, W>(op, launch, kStageFactor<V, W>, num_tokens, reinterpret_cast<float*>(scratch), stride);
  }
  StealingShares shares(op.weight.data.dim(0), RowConfig::kPanelRows, launch.threads->num_threads());
  const ReadAhead::Matrix* matrix = begin_read_ahead(op, launch, direct_grain(op));
  launch.threads->run([&](int thread) {
    std::byte* own = thread == 0 ? scratch + staged_bytes : launch.scratch->get(thread, plan.scratch_bytes());
    shares.run(thread, [&](int64_t begin, int64_t end) { run_row_panel<V>(m, plan, num_tokens, begin, end, own); });
    if (matrix) launch.read_ahead->end(matrix, thread);
  });
}

// Tokens [first, first + num_tokens), at most kMaxStaged.
template <class V, class W>
void run_panel_matmul(const MatmulOp& op, const Launch& launch, int64_t first, int64_t num_tokens) {
  const PanelPlan<V, W> plan(op.x.data.dim(1), num_tokens, op.weight.format.group_cols);
  const MatmulView<W> m = matmul_view<V, W>(op, first, 0x1p-64f);
  // Thread 0's buffer: the packed x of all threads, then its own panel.
  std::byte* scratch = launch.scratch->get(0, plan.packed_bytes() + plan.scratch_bytes());
  const PackedTokens x{reinterpret_cast<float*>(scratch), plan.num_tiles, plan.num_steps};
  pack_tokens<V, W>(op, launch, kStageFactor<V, W>, first, num_tokens, x);
  StealingShares shares(op.weight.data.dim(0), PanelChunk<V>::kRows, launch.threads->num_threads());
  const ReadAhead::Matrix* matrix = begin_read_ahead(op, launch, direct_grain(op));
  launch.threads->run([&](int thread) {
    std::byte* own = thread == 0 ? scratch + plan.packed_bytes() : launch.scratch->get(thread, plan.scratch_bytes());
    shares.run(thread, [&](int64_t begin, int64_t end) { run_panel<V, W>(m, plan, x, num_tokens, begin, end, own); });
    if (matrix) launch.read_ahead->end(matrix, thread);
  });
}

template <class V, class W>
void run_matmul_as(const MatmulOp& op, const Launch& launch) {
  const int64_t num_tokens = op.x.data.dim(0);
  if (num_tokens <= MatmulConfig::kMostDirectTokens) return run_direct_matmul<V, W>(op, launch);
  if (num_tokens <= MatmulConfig::kMostRowTokens) return run_rows_matmul<V, W>(op, launch);
  for (int64_t t = 0; t < num_tokens; t += MatmulConfig::kMaxStaged) {
    run_panel_matmul<V, W>(op, launch, t, std::min(MatmulConfig::kMaxStaged, num_tokens - t));
  }
}

template <class V>
void run_matmul(const MatmulOp& op, const Launch& launch) {
  const Granularity g = op.weight.format.granularity;
  const bool grouped = g == Granularity::kGroup || g == Granularity::kBlock;
  switch (op.weight.data.dtype) {
    case DType::kF32:
      return run_matmul_as<V, float>(op, launch);
    case DType::kBF16:
      return run_matmul_as<V, BF16>(op, launch);
    case DType::kF16:
      return run_matmul_as<V, F16>(op, launch);
    case DType::kI8:
      return run_matmul_as<V, int8_t>(op, launch);
    default:
      return grouped ? run_matmul_as<V, GroupedF8E4M3>(op, launch) : run_matmul_as<V, F8E4M3>(op, launch);
  }
}

}  // namespace octet
