// Which experts of a mixture compute each token, and the order in which their grouped products take the rows.
//
// Of the logits x [T, E] of a token:
//   score[e]  = softmax over e, or sigmoid, of x
//   choice[e] = score[e] + correction[e] (if given; DeepSeek-V3's e_score_correction_bias)
//   With num_groups > 1 the experts lie in groups of E / num_groups, and only the num_chosen_groups groups of the
//   largest group score (the largest choice in it, or the sum of the two largest) take part.
//   expert_ids[t] = the k experts of the largest choice, best first; of equal ones the lowest id first (groups alike)
//   weights[t]    = their scores, divided by (their sum + 1e-20) with kRenormalised, times scaling_factor
// Softmax and then top k, renormalised, is also top k and then softmax. Scores are taken in F64 and rounded to F32.
//
// A token whose logits hold a NaN or plus infinity, or nothing but minus infinities, has the experts 0 .. k-1 with NaN
// for weights: its own output becomes NaN, which ends its request and no other.
//
// The plan of the grouped products, of the experts [first_expert, first_expert + E_here) that this rank has:
//   offsets [E_here + 1]: rows [offsets[e], offsets[e + 1]) are of expert first_expert + e
//   order [T * k]:        row r computes slot order[r] % k of token order[r] / k; a row's expert rises with r, and of
//                         one expert order[r] does. Entries from offsets[E_here] on are -1.
//   rows [T, k]:          the row of each token and slot; -1: another rank's
// Everything is on the device and of fixed shape, whatever the routing: a captured step contains it. No expert has a
// capacity: no token is dropped, nothing is padded.
//
// x [T, E] f32, correction [E] f32 or empty; expert_ids, rows [T, k], order, offsets i32; weights [T, k] f32.
#pragma once

#include "octet/ops/shape_check.h"

namespace octet {

struct ExpertRouting {
  enum class Scoring : uint8_t { kSoftmax, kSigmoid } scoring = Scoring::kSoftmax;
  enum class GroupScore : uint8_t { kLargest, kTwoLargest } group_score = GroupScore::kLargest;
  enum class Weights : uint8_t { kAsScored, kRenormalised } weights = Weights::kAsScored;
  int64_t num_groups = 1;
  int64_t num_chosen_groups = 1;
  float scaling_factor = 1.0f;
};

// What the grouped products of a step need of its routing.
template <class Bytes>
struct BasicExpertPlan {
  BasicTensor<Bytes> offsets;
  BasicTensor<Bytes> order;
  BasicTensor<Bytes> rows;

  BasicExpertPlan() = default;
  BasicExpertPlan(BasicTensor<Bytes> offsets_, BasicTensor<Bytes> order_, BasicTensor<Bytes> rows_)
      : offsets(offsets_), order(order_), rows(rows_) {}
  template <class Other>
  requires(std::is_const_v<Bytes> && !std::is_const_v<Other>)
      BasicExpertPlan(const BasicExpertPlan<Other>& other)  // NOLINT: a view of constants is implicit
      : offsets(other.offsets), order(other.order), rows(other.rows) {}
  int64_t num_experts() const { return offsets.dim(0) - 1; }
  int64_t num_slots() const { return rows.dim(1); }
};
using ExpertPlan = BasicExpertPlan<std::byte>;
using ConstExpertPlan = BasicExpertPlan<const std::byte>;

struct RouteExpertsOp {
  static constexpr std::string_view kName = "route_experts";
  Tensor expert_ids;
  Tensor weights;
  ExpertPlan plan;
  ConstTensor x;
  ConstTensor correction;
  ExpertRouting routing;
  int64_t first_expert = 0;

  int64_t num_experts() const { return x.dim(1); }
  int64_t num_slots() const { return expert_ids.dim(1); }
  void check() const;
};

}  // namespace octet
