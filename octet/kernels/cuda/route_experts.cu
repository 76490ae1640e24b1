// cuda.route_experts: octet/ops/route_experts.h. A warp chooses a token's experts. Few tokens are one kernel of one
// CTA: their experts stay in shared memory, where a thread for each slot counts the slots that come before. Many are
// two kernels; in the second a CTA makes each expert's part of the plan: it counts the slots of experts before, and
// numbers its own in their order.
#include <climits>

#include "octet/kernels/cuda/kernels.h"
#include "octet/kernels/cuda/launch.cuh"

namespace octet {
namespace {

constexpr unsigned kAll = 0xffffffffu;
// Of a CTA that chooses among 32 * count experts, as many warps as registers allow.
constexpr int num_warps(int count) { return count >= 8 ? 8 : 16; }
constexpr int kPlanWarps = 16;
constexpr int kMaxExperts = 512;
constexpr int kMaxGroups = 32;
constexpr int kMaxSlots = 32;
constexpr int kTokensAtOnce = 16;  // of one CTA
constexpr int kSlotsAtOnce = 256;

struct Arguments {
  const float* x;
  int64_t x_stride;
  const float* correction;  // null: none
  int32_t* expert_ids;
  float* weights;
  int64_t weight_stride;
  int32_t *offsets, *order, *rows;
  ExpertRouting routing;
  int num_tokens, num_experts, num_slots;
  int first_expert, experts_here;

  __device__ int num_rows() const { return num_tokens * num_slots; }
};

// ---- choosing ----

// The lane's experts lane, lane + 32, ...
template <int kCount>
struct Experts {
  float score[kCount];
  float choice[kCount];
  bool taken[kCount];
};

__device__ inline float max_of_warp(float value) {
  for (int step = 16; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(kAll, value, step));
  return value;
}
__device__ inline double sum_of_warp(double value) {
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(kAll, value, step);
  return value;
}

// Integers that are ordered as the numbers are, of which none is NaN; 0 is below all.
__device__ inline uint32_t ordered(float value) {
  const uint32_t bits = __float_as_uint(value == 0.0f ? 0.0f : value);
  return bits ^ ((bits >> 31) != 0 ? kAll : 0x80000000u);
}

// The warp's largest, of equal ones that of the lowest index; the same in all lanes.
__device__ inline int largest_index(uint32_t value, int index) {
  const uint32_t largest = __reduce_max_sync(kAll, value);
  return static_cast<int>(__reduce_min_sync(kAll, value == largest ? static_cast<uint32_t>(index) : kAll));
}

// Takes out the experts of groups that are not chosen. `choices`: shared memory of the warp's own.
template <int kCount>
__device__ void choose_groups(const Arguments& a, Experts<kCount>& experts, float* choices) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const auto num_groups = static_cast<int>(a.routing.num_groups);
  const int size = a.num_experts / num_groups;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if (lane + 32 * i < a.num_experts) choices[lane + 32 * i] = experts.choice[i];
  }
  __syncwarp();
  uint32_t score = 0;
  if (lane < num_groups) {
    float first = -INFINITY;
    float second = -INFINITY;
    for (int e = lane * size; e < (lane + 1) * size; ++e) {
      second = fmaxf(second, fminf(first, choices[e]));
      first = fmaxf(first, choices[e]);
    }
    const bool two = a.routing.group_score == ExpertRouting::GroupScore::kTwoLargest && size > 1;
    score = ordered(two ? first + second : first);
  }
  __syncwarp();
  uint32_t chosen = 0;
  for (int i = 0; i < a.routing.num_chosen_groups; ++i) {
    const int group = largest_index(score, lane);
    chosen |= 1u << group;
    if (lane == group) score = 0;
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const int e = lane + 32 * i;
    if (e < a.num_experts) experts.taken[i] = (chosen >> (e / size) & 1) == 0;
  }
}

// Scores of the logits; false where they are broken.
template <int kCount>
__device__ bool score(const Arguments& a, const float* logits, Experts<kCount>& experts) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float largest = -INFINITY;
  bool has_nan = false;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const int e = lane + 32 * i;
    experts.taken[i] = e >= a.num_experts;
    experts.score[i] = e < a.num_experts ? logits[e] : -INFINITY;
    has_nan |= isnan(experts.score[i]);
    largest = fmaxf(largest, experts.score[i]);
  }
  largest = max_of_warp(largest);
  if (__any_sync(kAll, has_nan) || !isfinite(largest)) return false;
  const bool sigmoid = a.routing.scoring == ExpertRouting::Scoring::kSigmoid;
  double part = 0.0;
  double values[kCount];
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const double logit = experts.score[i];
    values[i] = sigmoid ? 1.0 / (1.0 + exp(-logit)) : exp(logit - largest);
    part += values[i];
  }
  const double sum = sigmoid ? 1.0 : sum_of_warp(part);
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const int e = lane + 32 * i;
    experts.score[i] = static_cast<float>(values[i] / sum);
    const bool corrected = a.correction != nullptr && e < a.num_experts;
    experts.choice[i] = corrected ? experts.score[i] + a.correction[e] : experts.score[i];
  }
  return true;
}

// One warp: a token's experts and weights. In lane s: the expert of slot s.
template <int kCount>
__device__ int choose(const Arguments& a, int token, float* choices) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  Experts<kCount> experts;
  int chosen = lane;
  float weight = NAN;
  if (score<kCount>(a, a.x + token * a.x_stride, experts)) {
    if (a.routing.num_groups > 1) choose_groups<kCount>(a, experts, choices);
    double sum = 0.0;
    float own = 0.0f;
    for (int s = 0; s < a.num_slots; ++s) {
      uint32_t best = 0;
      int index = 0;
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        const uint32_t value = experts.taken[i] ? 0 : ordered(experts.choice[i]);
        if (value > best) {
          best = value;
          index = lane + 32 * i;
        }
      }
      const int expert = largest_index(best, index);
      float found = 0.0f;
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        if (lane + 32 * i != expert) continue;
        experts.taken[i] = true;
        found = experts.score[i];
      }
      found = __shfl_sync(kAll, found, expert % 32);
      sum += found;
      if (lane == s) {
        chosen = expert;
        own = found;
      }
    }
    const double divisor = a.routing.weights == ExpertRouting::Weights::kRenormalised ? sum + 1e-20 : 1.0;
    weight = static_cast<float>(own / divisor * static_cast<double>(a.routing.scaling_factor));
  }
  if (lane < a.num_slots) {
    const int slot = token * a.num_slots + lane;
    a.expert_ids[slot] = chosen;
    a.weights[token * a.weight_stride + lane] = weight;
    if (chosen < a.first_expert || chosen >= a.first_expert + a.experts_here) a.rows[slot] = -1;
  }
  return chosen;
}

// ---- the plan ----

// Of the slots of a step, in shared memory: smaller for lower experts, of one expert for lower slots, and above all
// others for experts of other ranks.
__device__ inline int slot_key(int expert, int slot) { return expert * kSlotsAtOnce + slot; }
constexpr int kNoKey = INT_MAX;

// All of it by the threads of one CTA, in one pass over the keys, whose number is rounded up to whole vectors.
__device__ void plan_few(const Arguments& a, const int32_t* keys) {
  const auto thread = static_cast<int>(threadIdx.x);
  for (int first = 0; first < max(a.num_rows(), a.experts_here + 1); first += static_cast<int>(blockDim.x)) {
    const int i = first + thread;  // an expert, and a slot
    const int own = i < a.num_rows() ? keys[i] : kNoKey;
    int row = 0;
    int of_lower_experts = 0;
    int here = 0;
#pragma unroll 4
    for (int at = 0; at < a.num_rows(); at += 4) {
      const int4 vector = *reinterpret_cast<const int4*>(keys + at);
      for (const int key : {vector.x, vector.y, vector.z, vector.w}) {
        row += key < own ? 1 : 0;
        of_lower_experts += key < slot_key(i, 0) ? 1 : 0;
        here += key < kNoKey ? 1 : 0;
      }
    }
    if (i <= a.experts_here) a.offsets[i] = of_lower_experts;
    if (i < a.num_rows() && i >= here) a.order[i] = -1;
    if (own == kNoKey) continue;
    a.order[row] = i;
    a.rows[i] = row;
  }
}

// Expert `expert`'s part, by a CTA; that of experts_here, whom nobody has, is the end of all. The slots are cut into
// one stretch for each warp. counts: shared memory.
__device__ void plan_expert(const Arguments& a, int expert, int2 (&counts)[kPlanWarps]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int stretch = (a.num_rows() + 32 * kPlanWarps - 1) / (32 * kPlanWarps) * 32;
  const int begin = min(warp * stretch, a.num_rows());
  const int end = min(begin + stretch, a.num_rows());
  const auto expert_at = [&](int i) { return i < end ? a.expert_ids[i] - a.first_expert : -1; };
  int before = 0;
  int own = 0;
#pragma unroll 4
  for (int i = begin + lane; i < begin + stretch; i += 32) {
    const int e = expert_at(i);
    before += e >= 0 && e < expert ? 1 : 0;
    own += e == expert ? 1 : 0;
  }
  before = __reduce_add_sync(kAll, before);
  own = __reduce_add_sync(kAll, own);
  if (lane == 0) counts[warp] = {before, own};
  __syncthreads();
  before = 0;
  int of_earlier = 0;
  for (int i = 0; i < kPlanWarps; ++i) {
    before += counts[i].x;
    of_earlier += i < warp ? counts[i].y : 0;
  }
  if (threadIdx.x == 0) a.offsets[expert] = before;
  if (expert == a.experts_here) {
    for (int i = before + static_cast<int>(threadIdx.x); i < a.num_rows(); i += 32 * kPlanWarps) a.order[i] = -1;
    return;
  }
  int row = before + of_earlier;
#pragma unroll 4
  for (int i = begin + lane; i < begin + stretch; i += 32) {
    const unsigned mine = __ballot_sync(kAll, expert_at(i) == expert);
    if ((mine >> lane & 1) != 0) {
      const int r = row + __popc(mine & ((1u << lane) - 1));
      a.order[r] = i;
      a.rows[i] = r;
    }
    row += __popc(mine);
  }
}

// ---- kernels ----

template <int kCount>
__global__ void __launch_bounds__(32 * num_warps(kCount)) route_few(const Arguments a) {
  constexpr int kWarps = num_warps(kCount);
  __shared__ float choices[kWarps][32 * kCount];
  __shared__ __align__(16) int32_t keys[kSlotsAtOnce];
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int i = static_cast<int>(threadIdx.x); i < kSlotsAtOnce; i += 32 * kWarps) keys[i] = kNoKey;
  start_next();
  wait_for_previous();
  __syncthreads();
  for (int token = warp; token < a.num_tokens; token += kWarps) {
    const int expert = choose<kCount>(a, token, choices[warp]) - a.first_expert;
    const int slot = token * a.num_slots + lane;
    if (lane < a.num_slots && expert >= 0 && expert < a.experts_here) keys[slot] = slot_key(expert, slot);
  }
  __syncthreads();
  plan_few(a, keys);
}

template <int kCount>
__global__ void __launch_bounds__(32 * num_warps(kCount)) choose_experts(const Arguments a) {
  constexpr int kWarps = num_warps(kCount);
  __shared__ float choices[kWarps][32 * kCount];
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int token = static_cast<int>(blockIdx.x) * kWarps + warp;
  start_next();
  wait_for_previous();
  if (token < a.num_tokens) choose<kCount>(a, token, choices[warp]);
}

__global__ void __launch_bounds__(32 * kPlanWarps) plan_experts(const Arguments a) {
  __shared__ int2 counts[kPlanWarps];
  start_next();
  wait_for_previous();
  plan_expert(a, static_cast<int>(blockIdx.x), counts);
}

// ---- host ----

std::string declines(const RouteExpertsOp& op, const Launch&) {
  if (op.num_experts() > kMaxExperts)
    return fmt::format("takes at most {} experts, not {}", kMaxExperts, op.num_experts());
  if (op.num_slots() > kMaxSlots)
    return fmt::format("takes at most {} experts a token, not {}", kMaxSlots, op.num_slots());
  if (op.routing.num_groups > kMaxGroups)
    return fmt::format("takes at most {} groups, not {}", kMaxGroups, op.routing.num_groups);
  return op.expert_ids.contiguous() ? "" : "expert_ids must be contiguous";
}

template <int kCount>
void run_count(const Arguments& a, const Launch& launch) {
  constexpr int kWarps = num_warps(kCount);
  const auto shape = [](int ctas, int warps) {
    return LaunchShape{.grid = dim3(static_cast<unsigned>(ctas)), .block = dim3(static_cast<unsigned>(32 * warps))};
  };
  if (a.num_tokens <= kTokensAtOnce && a.num_tokens * a.num_slots <= kSlotsAtOnce) {
    launch_kernel("cuda.route_experts", launch, shape(1, kWarps), route_few<kCount>, a);
    return;
  }
  launch_kernel("cuda.route_experts", launch, shape((a.num_tokens + kWarps - 1) / kWarps, kWarps),
                choose_experts<kCount>, a);
  launch_kernel("cuda.route_experts", launch, shape(a.experts_here + 1, kPlanWarps), plan_experts, a);
}

void run(const RouteExpertsOp& op, const Launch& launch) {
  const Arguments arguments{.x = op.x.data<float>(),
                            .x_stride = op.x.row_stride,
                            .correction = op.correction ? op.correction.data<float>() : nullptr,
                            .expert_ids = op.expert_ids.data<int32_t>(),
                            .weights = op.weights.data<float>(),
                            .weight_stride = op.weights.row_stride,
                            .offsets = op.plan.offsets.data<int32_t>(),
                            .order = op.plan.order.data<int32_t>(),
                            .rows = op.plan.rows.data<int32_t>(),
                            .routing = op.routing,
                            .num_tokens = static_cast<int>(op.x.dim(0)),
                            .num_experts = static_cast<int>(op.num_experts()),
                            .num_slots = static_cast<int>(op.num_slots()),
                            .first_expert = static_cast<int>(op.first_expert),
                            .experts_here = static_cast<int>(op.plan.num_experts())};
  if (arguments.num_experts <= 32) return run_count<1>(arguments, launch);
  if (arguments.num_experts <= 64) return run_count<2>(arguments, launch);
  if (arguments.num_experts <= 128) return run_count<4>(arguments, launch);
  if (arguments.num_experts <= 256) return run_count<8>(arguments, launch);
  run_count<kMaxExperts / 32>(arguments, launch);
}

}  // namespace

Kernel<RouteExpertsOp> cuda_route_experts() { return {.name = "cuda.route_experts", .declines = declines, .run = run}; }

}  // namespace octet
