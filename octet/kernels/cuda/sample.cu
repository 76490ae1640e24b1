// cuda.sample: octet/ops/sample.h. One cluster of 8 CTAs a row: its values lie in their shared memory as keys whose
// order is the values', read once. Whatever the whole row must agree on (the largest value, sums of weights) every CTA
// writes to all. Thresholds are found digit by digit from the top, by the weights of the 16 digits that may follow;
// nothing is sorted.
//
// Weights are integers, and their sums exact: how a row is cut changes no bit.
#include <cooperative_groups.h>

#include "octet/kernels/cuda/kernels.h"
#include "octet/kernels/cuda/launch.cuh"

namespace octet {
namespace {

constexpr int kClusterCtas = 8;
constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr int kDigitBits = 4;
constexpr int kDigits = 1 << kDigitBits;
constexpr unsigned kAll = 0xffffffffu;
static_assert(kDigits == kWarps, "both are exchanged in the same places");

using Number = unsigned long long;
constexpr Number kBroken = ~Number{0};

struct Arguments {
  int32_t* index;
  const float* x;
  const RowDraw* draws;
  int64_t x_stride;
  int columns;
  int piece;  // columns of a CTA
};

// ---- keys ----

constexpr unsigned kMinusInfinity = 0x007fffffu;  // the key
__device__ unsigned key_of(float value) {
  const unsigned bits = __float_as_uint(value + 0.0f);  // -0 counts as 0
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
__device__ float value_of(unsigned key) { return __uint_as_float((key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key); }

// token_weight() of a key.
struct Softmax {
  float largest, scale;

  __device__ Number weight(unsigned key) const {
    const float x = __fmul_rn(__fsub_rn(value_of(key), largest), scale);
    if (!(x > -100.0f)) return 0;
    const float t = __fmul_rn(x, 1.44269504f);
    const float n = rintf(t);
    const float f = __fsub_rn(t, n);
    constexpr float c0 = kExp2Series[0], c1 = kExp2Series[1], c2 = kExp2Series[2], c3 = kExp2Series[3],
                    c4 = kExp2Series[4], c5 = kExp2Series[5], c6 = kExp2Series[6];
    float power = fmaf(c6, f, c5);
    power = fmaf(power, f, c4);
    power = fmaf(power, f, c3);
    power = fmaf(power, f, c2);
    power = fmaf(power, f, c1);
    power = fmaf(power, f, c0);
    return weight_of(power, static_cast<int>(n));
  }
};

// ---- what a warp and what a cluster agrees on ----

__device__ int warp_index() { return static_cast<int>(threadIdx.x) / 32; }
__device__ int lane_index() { return static_cast<int>(threadIdx.x) % 32; }

__device__ Number warp_sum(Number value) {
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(kAll, value, step);
  return value;
}
__device__ unsigned warp_sum(unsigned value) { return __reduce_add_sync(kAll, value); }
__device__ Number warp_largest(Number value) {
  for (int step = 16; step > 0; step /= 2) value = max(value, __shfl_xor_sync(kAll, value, step));
  return value;
}
// The sum of lanes up to this one and with it.
__device__ Number scanned(Number value) {
  for (int step = 1; step < 32; step *= 2) {
    const Number before = __shfl_up_sync(kAll, value, static_cast<unsigned>(step));
    if (lane_index() >= step) value += before;
  }
  return value;
}

struct Exchange {
  Number from[2][kClusterCtas][kWarps];  // two, so that one is written while the other is read
  Number of_warps[kWarps][kDigits];
};

class Cluster {
 public:
  __device__ explicit Cluster(Exchange& exchange)
      : exchange_(exchange),
        cluster_(cooperative_groups::this_cluster()),
        cta_(static_cast<int>(cluster_.block_rank())) {}

  __device__ int cta() const { return cta_; }
  __device__ void start() const { cluster_.sync(); }  // before which no CTA's memory may be written

  // The numbers of all warps, those of CTA 0 first.
  __device__ const Number* gather(Number of_warp) {
    turn_ ^= 1;
    if (lane_index() < kClusterCtas)
      *cluster_.map_shared_rank(&exchange_.from[turn_][cta_][warp_index()], lane_index()) = of_warp;
    cluster_.sync();
    return &exchange_.from[turn_][0][0];
  }
  // The sum over all threads of digits[i], to lane i of every warp.
  template <class T>
  __device__ Number add(const T (&digits)[kDigits]) {
#pragma unroll
    for (int i = 0; i < kDigits; ++i) {
      const Number sum = warp_sum(digits[i]);
      if (lane_index() == i) exchange_.of_warps[warp_index()][i] = sum;
    }
    __syncthreads();
    turn_ ^= 1;
    const int digit = static_cast<int>(threadIdx.x) % kDigits;
    if (threadIdx.x < kClusterCtas * kDigits) {
      Number sum = 0;
      for (int warp = 0; warp < kWarps; ++warp) sum += exchange_.of_warps[warp][digit];
      *cluster_.map_shared_rank(&exchange_.from[turn_][cta_][digit], static_cast<int>(threadIdx.x) / kDigits) = sum;
    }
    cluster_.sync();
    Number sum = 0;
    for (int cta = 0; cta < kClusterCtas; ++cta) sum += exchange_.from[turn_][cta][digit];
    return sum;
  }

 private:
  Exchange& exchange_;
  cooperative_groups::cluster_group cluster_;
  int cta_;
  int turn_ = 0;
};

constexpr int kPerLane = kClusterCtas * kWarps / 32;  // numbers of gather()
__device__ Number sum_of(const Number* numbers, int count) {
  Number sum = 0;
  for (int i = lane_index(); i < count; i += 32) sum += numbers[i];
  return warp_sum(sum);
}

// ---- a CTA's part of a row ----

struct Piece {
  const unsigned* keys;  // shared memory
  int begin, count;      // of the row's columns

  // What a warp has of it.
  __device__ int warp_columns() const { return (count + kThreads - 1) / kThreads * 32; }
  __device__ int warp_begin() const { return min(count, warp_index() * warp_columns()); }
  __device__ int warp_end() const { return min(count, warp_begin() + warp_columns()); }
};

// Brings the piece to shared memory. Returns the key of the largest value, then the complement of its column.
__device__ Number load(const Arguments& a, const float* row, const Piece& piece, unsigned* keys) {
  Number largest = 0;
  const auto take = [&](int i, float value) {
    keys[i] = key_of(value);
    const Number place = kAll - static_cast<unsigned>(piece.begin + i);
    // NaN and plus infinity are larger than all.
    largest = max(largest, value < INFINITY ? static_cast<Number>(keys[i]) << 32 | place : kBroken);
  };
  int i = 4 * static_cast<int>(threadIdx.x);
  if (reinterpret_cast<uintptr_t>(row) % sizeof(float4) == 0) {  // a piece begins at a multiple of 4
    constexpr int kAhead = 4;                                    // loads of a thread under way
    for (; i + 4 <= piece.count; i += 4 * kThreads * kAhead) {
      float4 values[kAhead];
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        const int at = i + 4 * kThreads * j;
        if (at + 4 <= piece.count) values[j] = *reinterpret_cast<const float4*>(row + piece.begin + at);
      }
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        const int at = i + 4 * kThreads * j;
        if (at + 4 > piece.count) continue;
        take(at, values[j].x);
        take(at + 1, values[j].y);
        take(at + 2, values[j].z);
        take(at + 3, values[j].w);
      }
    }
  }
  for (; i < piece.count; i += 4 * kThreads) {
    for (int j = i; j < min(i + 4, piece.count); ++j) take(j, row[piece.begin + j]);
  }
  return warp_largest(largest);
}

// The largest key such that the tokens with at least it, and at least `least`, weigh `target`; all count 1 unless
// kWeighted. `least` when all together weigh less.
struct Found {
  unsigned key;
  Number above;  // the weight of greater keys
};
template <bool kWeighted>
__device__ Found find_key(Cluster& cluster, const Piece& piece, unsigned least, Number target, const Softmax& softmax) {
  Found found{.key = 0, .above = 0};
  for (int shift = 32 - kDigitBits; shift >= 0; shift -= kDigitBits) {
    std::conditional_t<kWeighted, Number, unsigned> digits[kDigits] = {};
    for (int base = 0; base < piece.count; base += kThreads) {
      const int i = base + static_cast<int>(threadIdx.x);
      const unsigned key = i < piece.count ? piece.keys[i] : 0;
      const unsigned prefix = static_cast<unsigned>(static_cast<Number>(key) >> (shift + kDigitBits));
      const bool counts = i < piece.count && key >= least && prefix == found.key;
      if (!__any_sync(kAll, counts)) continue;
      const std::conditional_t<kWeighted, Number, unsigned> weight = !counts ? 0 : kWeighted ? softmax.weight(key) : 1;
      const unsigned digit = key >> shift & (kDigits - 1);
#pragma unroll
      for (unsigned d = 0; d < kDigits; ++d) digits[d] += digit == d ? weight : 0;
    }
    Number reached = cluster.add(digits);  // of this lane's digit, then of it and those above
    for (int step = 1; step < kDigits; step *= 2) {
      const Number more = __shfl_down_sync(kAll, reached, static_cast<unsigned>(step), kDigits);
      if (lane_index() % kDigits + step < kDigits) reached += more;
    }
    const unsigned enough = __ballot_sync(kAll, lane_index() < kDigits && found.above + reached >= target);
    if (enough == 0) return {.key = least, .above = 0};
    const int digit = 31 - __clz(static_cast<int>(enough));
    const Number above = __shfl_sync(kAll, reached, digit + 1);
    if (digit + 1 < kDigits) found.above += above;
    found.key = found.key << kDigitBits | static_cast<unsigned>(digit);
  }
  return found;
}

// ---- the draw ----

// Which tokens are left: keys above `least`, and the first `num_least` of those equal to it.
struct Kept {
  unsigned least;
  Number num_least;
  Number total;  // their weight
};

// Calls fn(column, weight) for the warp's columns in order, 32 at a time; 0 for tokens that are not left. `before`: how
// many equal to `least` come before.
template <class Fn>
__device__ void for_kept(const Piece& piece, const Kept& kept, const Softmax& softmax, Number before, Fn&& fn) {
  for (int base = piece.warp_begin(); base < piece.warp_end(); base += 32) {
    const int i = base + lane_index();
    const unsigned key = i < piece.warp_end() ? piece.keys[i] : 0;
    const bool is_least = i < piece.warp_end() && key == kept.least;
    const unsigned all_least = __ballot_sync(kAll, is_least);
    const auto rank = before + static_cast<unsigned>(__popc(all_least & ((1u << lane_index()) - 1)));
    const bool is_kept = i < piece.warp_end() && (key > kept.least || (is_least && rank < kept.num_least));
    before += static_cast<unsigned>(__popc(all_least));
    if (fn(piece.begin + i, is_kept ? softmax.weight(key) : 0)) return;
  }
}

__device__ Number warp_weight(const Piece& piece, const Kept& kept, const Softmax& softmax, Number before) {
  Number sum = 0;
  for_kept(piece, kept, softmax, before, [&](int, Number weight) {
    sum += weight;
    return false;
  });
  return warp_sum(sum);
}

// What min_p, top_k and top_p leave.
__device__ Kept restrict_to(const RowDraw& draw, int columns, Cluster& cluster, const Piece& piece,
                            const Softmax& softmax) {
  Kept kept{.least = max(kMinusInfinity + 1, key_of(softmax.largest + draw.min_gap)), .num_least = kBroken, .total = 0};
  if (draw.top_k > 0 && draw.top_k < columns)
    kept.least = find_key<false>(cluster, piece, kept.least, static_cast<unsigned>(draw.top_k), softmax).key;
  kept.total = sum_of(cluster.gather(warp_weight(piece, kept, softmax, 0)), kClusterCtas * kWarps);
  if (draw.top_p >= 1.0) return kept;
  const double share = ceil(__dmul_rn(draw.top_p, __ull2double_rn(kept.total)));
  const Number target = share < 1.0 ? 1 : __double2ull_rz(share);
  const Found found = find_key<true>(cluster, piece, kept.least, target, softmax);
  const Number weight = softmax.weight(found.key);
  kept.least = found.key;
  kept.num_least = weight == 0 ? kBroken : (target - found.above + weight - 1) / weight;
  kept.total = found.above + kept.num_least * weight;
  return kept;
}

__device__ void draw_token(const Kept& kept, Number uniform, Cluster& cluster, const Piece& piece,
                           const Softmax& softmax, int32_t* index) {
  const int me = cluster.cta() * kWarps + warp_index();
  Number before = 0;  // equals of `least`, then weight
  if (kept.num_least != kBroken) {
    unsigned count = 0;
    for (int i = piece.warp_begin() + lane_index(); i < piece.warp_end(); i += 32) count += piece.keys[i] == kept.least;
    before = sum_of(cluster.gather(warp_sum(count)), me);
  }
  const Number num_before = before;
  const Number* weights = cluster.gather(warp_weight(piece, kept, softmax, num_before));
  const Number drawn = __umul64hi(uniform, kept.total);
  before = sum_of(weights, me);
  if (drawn < before || drawn >= before + weights[me]) return;
  for_kept(piece, kept, softmax, num_before, [&](int column, Number weight) {
    const Number until = before + scanned(weight);
    const unsigned beyond = __ballot_sync(kAll, until > drawn);
    if (beyond != 0 && lane_index() == __ffs(static_cast<int>(beyond)) - 1) *index = column;
    before = __shfl_sync(kAll, until, 31);
    return beyond != 0;
  });
}

__global__ void __cluster_dims__(kClusterCtas) __launch_bounds__(kThreads) sample(const Arguments a) {
  extern __shared__ unsigned keys[];
  __shared__ Exchange exchange;
  Cluster cluster(exchange);
  const int row = static_cast<int>(blockIdx.y);
  Piece piece{.keys = keys, .begin = min(cluster.cta() * a.piece, a.columns), .count = 0};
  piece.count = min(a.piece, a.columns - piece.begin);
  start_next();
  wait_for_previous();
  const RowDraw draw = a.draws[row];
  const Number of_warp = load(a, a.x + row * a.x_stride, piece, keys);
  cluster.start();
  const Number* all = cluster.gather(of_warp);
  Number largest = 0;
  for (int i = 0; i < kPerLane; ++i) largest = max(largest, all[lane_index() * kPerLane + i]);
  largest = warp_largest(largest);
  const auto key = static_cast<unsigned>(largest >> 32);
  const bool broken = largest == kBroken || key <= kMinusInfinity;
  if (broken || draw.inverse_temperature == 0.0f) {
    if (cluster.cta() == 0 && threadIdx.x == 0)
      a.index[row] = broken ? kBrokenRow : static_cast<int>(kAll - static_cast<unsigned>(largest));
    return;
  }
  const Softmax softmax{.largest = value_of(key), .scale = draw.inverse_temperature};
  const Kept kept = restrict_to(draw, a.columns, cluster, piece, softmax);
  draw_token(kept, draw.uniform, cluster, piece, softmax, a.index + row);
}

// ---- host ----

int piece_of(const SampleOp& op) {
  return static_cast<int>((op.x.dim(1) + kClusterCtas * 4 - 1) / (kClusterCtas * 4) * 4);
}
int64_t shared_bytes(const SampleOp& op) { return piece_of(op) * int64_t{sizeof(unsigned)}; }

std::string declines(const SampleOp& op, const Launch& launch) {
  if (op.x.dim(0) > 65535) return fmt::format("{} rows, takes at most 65535", op.x.dim(0));
  const int64_t most = launch.gpu->max_shared_bytes - static_cast<int64_t>(sizeof(Exchange));
  if (shared_bytes(op) > most) return fmt::format("{} columns, takes at most {}", op.x.dim(1), 2 * most);
  return "";
}

void run(const SampleOp& op, const Launch& launch) {
  if (op.x.dim(0) == 0) return;
  const Arguments arguments{.index = op.index.data<int32_t>(),
                            .x = op.x.data<float>(),
                            .draws = reinterpret_cast<const RowDraw*>(op.draws.bytes),
                            .x_stride = op.x.row_stride,
                            .columns = static_cast<int>(op.x.dim(1)),
                            .piece = piece_of(op)};
  const LaunchShape shape{.grid = dim3(kClusterCtas, static_cast<unsigned>(op.x.dim(0))),
                          .block = dim3(kThreads),
                          .shared_bytes = shared_bytes(op)};
  allow_shared_bytes(sample, shape.shared_bytes);
  launch_kernel("cuda.sample", launch, shape, sample, arguments);
}

}  // namespace

Kernel<SampleOp> cuda_sample() { return {.name = "cuda.sample", .declines = declines, .run = run}; }

}  // namespace octet
