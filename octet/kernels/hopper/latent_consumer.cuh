// The multiplying warpgroups of attention_latent: the leader makes scores and weights, both make values.
#pragma once

#include "octet/kernels/cuda/rows.cuh"
#include "octet/kernels/hopper/latent_producer.cuh"
#include "octet/kernels/hopper/latent_wgmma.cuh"

namespace octet {

template <class T>
struct LatentShape {
  using Cache = T;
  static constexpr bool kBf16 = sizeof(T) == 2;
  using Operand = std::conditional_t<kBf16, BF16, F16>;
  // Together what the kernel starts with, 3 * 168; widening takes more registers than copying.
  static constexpr int kProducerRegisters = kBf16 ? 72 : 88;
  static constexpr int kLeaderRegisters = kBf16 ? 232 : 224;
  static constexpr int kFollowerRegisters = kBf16 ? 200 : 192;
};

inline constexpr int kLatentColumns = kLatentDim / 2;  // of values, a warpgroup's

__device__ inline int latent_warpgroup() { return static_cast<int>(threadIdx.x) / 128 - 1; }
__device__ inline int first_row_of_thread() {
  return static_cast<int>(threadIdx.x) % 128 / 32 * 16 + static_cast<int>(threadIdx.x) % 32 / 4;
}
// Both multiplying warpgroups, and they alone.
__device__ inline void sync_consumers() { asm volatile("bar.sync 1, %0;" ::"n"(kLatentConsumers) : "memory"); }

// q of the piece's rows to shared memory, by all consumers: a row a warp. Rows beyond the sequence's are zeros.
template <class S>
__device__ void load_latent_queries(const AttentionInput& in, const LatentPiece& piece, LatentShared& shared) {
  constexpr int kPieces = kLatentKeyDim / 8;
  constexpr int kLanePieces = (kPieces + 31) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const uint32_t to = shared_address(shared.q);
#pragma unroll 2
  for (int row = static_cast<int>(threadIdx.x) / 32 - 4; row < kLatentRows; row += kLatentConsumers / 32) {
    const int r = piece.row_block * kLatentRows + row;
    const bool exists = r < piece.view.num_rows * in.num_heads;
    const int64_t t = piece.view.first_row + r / in.num_heads;
    const BF16* from = static_cast<const BF16*>(in.q) + t * in.q_stride + int64_t{r % in.num_heads} * kLatentKeyDim;
    uint4 words[kLanePieces];
    float amax = 0.0f;
#pragma unroll
    for (int i = 0; i < kLanePieces; ++i) {
      const int at = lane + 32 * i;
      words[i] = exists && at < kPieces ? reinterpret_cast<const uint4*>(from)[at] : make_uint4(0, 0, 0, 0);
      for (const uint32_t word : {words[i].x, words[i].y, words[i].z, words[i].w}) {
        const float2 pair = unpack_bf16(word);
        amax = fmaxf(amax, fmaxf(fabsf(pair.x), fabsf(pair.y)));
      }
    }
    PowerOfTwo scale{1.0f, 1.0f};
    if constexpr (!S::kBf16) {
      scale = f16_scale(max_of_lanes(amax));
      if (lane == 0) shared.q_scale[row] = scale.inverse;
    }
#pragma unroll
    for (int i = 0; i < kLanePieces; ++i) {
      const auto scaled = [&](uint32_t word) {
        if constexpr (S::kBf16) return word;
        const float2 pair = unpack_bf16(word);
        return pack_pair<false>(pair.x * scale.factor, pair.y * scale.factor);
      };
      const int at = lane + 32 * i;
      if (at >= kPieces) continue;
      store_shared_16(to + latent_place(row, at),
                      make_uint4(scaled(words[i].x), scaled(words[i].y), scaled(words[i].z), scaled(words[i].w)));
    }
  }
}

// What both multiplying warpgroups do: the values of their half of the columns. A thread has two rows, lane / 4 and
// lane / 4 + 8 of its warp's 16.
template <class S>
class LatentConsumer {
 public:
  __device__ LatentConsumer(const AttentionInput& in, const LatentPiece& piece, LatentShared& shared)
      : in_(in), piece_(piece), shared_(shared) {
#pragma unroll
    for (float& sum : sums_) sum = 0.0f;
  }

  // The rows' results, or partial results; all threads of both warpgroups call it.
  __device__ void write(const AttentionOutput& output, const LatentPartials& partials) const {
    const bool whole = piece_.begins() && piece_.ends();
    const int64_t slot = 2 * int64_t{blockIdx.x} + (piece_.begins() ? 1 : 0);
    const int column = latent_warpgroup() * kLatentColumns + static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = first_row_of_thread() + 8 * i, r = piece_.row_block * kLatentRows + row;
      if (r >= piece_.view.num_rows * in_.num_heads) continue;
      if (whole) {
        const float factor = in_.v_scale / shared_.totals[row];
        const int64_t t = piece_.view.first_row + r / in_.num_heads;
#pragma unroll
        for (int j = 0; j < kLatentColumns / 8; ++j) {
          const float2 pair{sums_[4 * j + 2 * i] * factor, sums_[4 * j + 2 * i + 1] * factor};
          store_pair(output, t, r % in_.num_heads * kLatentDim + column + 8 * j, pair, 0.0f);
        }
        continue;
      }
      const int64_t index = slot * kLatentRows + row;
      if (column == 0) partials.softmax[index] = make_float2(shared_.highest[row], shared_.totals[row]);
      float* const to = partials.sums + index * kLatentDim + column;
#pragma unroll
      for (int j = 0; j < kLatentColumns / 8; ++j) {
        *reinterpret_cast<float2*>(to + 8 * j) = make_float2(sums_[4 * j + 2 * i], sums_[4 * j + 2 * i + 1]);
      }
    }
  }

 protected:
  // Highest scores rarely change once some hundreds of keys are seen.
  __device__ void rescale(const float2& correction) {
    if (!__any_sync(0xffffffffu, correction.x != 1.0f || correction.y != 1.0f)) return;
#pragma unroll
    for (int j = 0; j < kLatentColumns / 2; ++j) sums_[j] *= j / 2 % 2 == 0 ? correction.x : correction.y;
  }

  __device__ void start_values(int tile) {
    const uint32_t weights = shared_address(shared_.weights);
    const uint32_t values = shared_address(shared_.keys[tile % kLatentStages]) +
                            static_cast<uint32_t>(latent_warpgroup() * (kLatentColumns / 64) * kLatentChunkBytes);
    wgmma_begin();
#pragma unroll
    for (int step = 0; step < kLatentKeys / 16; ++step) {
      wgmma_latent_values<typename S::Operand>(
          sums_, wgmma_operand(weights + static_cast<uint32_t>(step * 32)),
          transposed_operand(values + static_cast<uint32_t>(step * 16 * 128), kLatentChunkBytes));
    }
    wgmma_commit();
  }

  __device__ void wait_full(int tile) const {
    wait_barrier(&shared_.full[tile % kLatentStages], tile / kLatentStages % 2);
  }
  __device__ void release(int tile) const {
    if (threadIdx.x % 32 == 0) arrive_barrier(&shared_.empty[tile % kLatentStages]);
  }

  const AttentionInput& in_;
  const LatentPiece& piece_;
  LatentShared& shared_;
  float sums_[kLatentColumns / 2];
};

// The one that makes scores and weights too.
template <class S>
class LatentLeader : public LatentConsumer<S> {
 public:
  __device__ LatentLeader(const AttentionInput& in, const LatentPiece& piece, LatentShared& shared)
      : LatentConsumer<S>(in, piece, shared) {
    const SequenceView& view = piece.view;
    const int first = piece.row_block * kLatentRows, rows = view.num_rows * in.num_heads;
    lowest_position_ = view.seq_len - view.num_rows + first / in.num_heads;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = first_row_of_thread() + 8 * i;
      scale_[i] = in.score_scale * kLog2e * (S::kBf16 ? 1.0f : shared.q_scale[row]);
      position_[i] = view.seq_len - view.num_rows + min(first + row, rows - 1) / in.num_heads;
    }
  }

  // `tile`: how many tiles the CTA has had before; afterwards those of the piece are among them.
  __device__ void run(int& tile) {
    const int count = this->piece_.end - this->piece_.first;
    float scores[32];
    this->wait_full(tile);
    start_scores(tile, scores);
    wgmma_wait<0>();
    use_after_wait(scores);
    for (int i = 0; i + 1 < count; ++i, ++tile) {
      weigh(this->piece_.first + i, scores);
      this->start_values(tile);
      this->wait_full(tile + 1);
      start_scores(tile + 1, scores);
      wgmma_wait<1>();
      use_after_wait(this->sums_);
      this->release(tile);
      wgmma_wait<0>();
      use_after_wait(scores);
      wait_for_follower();
    }
    weigh(this->piece_.first + count - 1, scores);
    this->start_values(tile);
    wgmma_wait<0>();
    use_after_wait(this->sums_);
    this->release(tile++);
    wait_for_follower();
    leave_totals();
  }

 private:
  __device__ void start_scores(int tile, float (&scores)[32]) const {
    const uint32_t q = shared_address(this->shared_.q);
    const uint32_t keys = shared_address(this->shared_.keys[tile % kLatentStages]);
    wgmma_begin();
#pragma unroll
    for (int step = 0; step < kLatentKeyDim / 16; ++step) {
      const auto offset = static_cast<uint32_t>(step / 4 * kLatentChunkBytes + step % 4 * 32);
      wgmma<typename S::Operand>(scores, wgmma_operand(q + offset), wgmma_operand(keys + offset), step);
    }
    wgmma_commit();
  }

  __device__ void mask(int step, float (&scores)[32]) const {
    if ((step + 1) * kLatentKeys - 1 <= lowest_position_) return;
    const int key0 = step * kLatentKeys + static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
    for (int j = 0; j < 32; ++j) {
      if (key0 + j / 4 * 8 + j % 2 > position_[j / 2 % 2]) scores[j] = -INFINITY;
    }
  }

  // Scores of step `step` to weights, in shared memory for both; sums so far are brought to the same scale.
  __device__ void weigh(int step, float (&scores)[32]) {
    mask(step, scores);
    float correction[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float now = highest_[i];
#pragma unroll
      for (int j = 0; j < 8; ++j) now = fmaxf(now, fmaxf(scores[4 * j + 2 * i], scores[4 * j + 2 * i + 1]));
      now = fmaxf(now, __shfl_xor_sync(0xffffffffu, now, 1));
      now = fmaxf(now, __shfl_xor_sync(0xffffffffu, now, 2));
      const float base = now == -INFINITY ? 0.0f : now * scale_[i];
      correction[i] = exp2_fast(highest_[i] * scale_[i] - base);
      highest_[i] = now;
      if (threadIdx.x % 4 == 0) this->shared_.correction[first_row_of_thread() + 8 * i] = correction[i];
      const float shift = S::kBf16 ? -base : kF16WeightBits - base;
      float sum = 0.0f;
#pragma unroll
      for (int j = 0; j < 8; ++j) {
#pragma unroll
        for (int e = 4 * j + 2 * i; e < 4 * j + 2 * i + 2; ++e) {
          scores[e] = exp2_fast(fmaf(scores[e], scale_[i], shift));
          sum += scores[e];
        }
      }
      total_[i] = total_[i] * correction[i] + sum;
    }
    store_weights(scores);
    asm volatile("bar.arrive 2, %0;" ::"n"(kLatentConsumers) : "memory");  // see LatentFollower
    this->rescale({correction[0], correction[1]});
  }

  __device__ void store_weights(const float (&scores)[32]) const {
    const uint32_t to = shared_address(this->shared_.weights);
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int row = static_cast<int>(threadIdx.x) % 128 / 32 * 16 + lane % 16;
#pragma unroll
    for (int j = 0; j < 4; ++j) {  // 16 keys
      uint32_t matrices[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        matrices[i] = pack_pair<S::kBf16>(scores[8 * j + 2 * i], scores[8 * j + 2 * i + 1]);
      }
      const int piece = 2 * j + lane / 16;
      store_matrices(to + static_cast<uint32_t>(row * 128 + (piece ^ row % 8) * 16), matrices);
    }
    fence_shared_for_wgmma();
    asm volatile("bar.sync 5, 128;" ::: "memory");  // all of the leader's threads have stored
  }

  // Until it no longer needs the weights.
  __device__ static void wait_for_follower() { asm volatile("bar.sync 3, %0;" ::"n"(kLatentConsumers) : "memory"); }

  __device__ void leave_totals() const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float sum = total_[i];
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      if (threadIdx.x % 4 != 0) continue;
      this->shared_.totals[first_row_of_thread() + 8 * i] = sum;
      this->shared_.highest[first_row_of_thread() + 8 * i] = highest_[i] * scale_[i];
    }
  }

  float scale_[2];  // of a score, to base-2 logarithms
  int position_[2];
  float highest_[2] = {-INFINITY, -INFINITY};  // of the unscaled scores
  float total_[2] = {0.0f, 0.0f};              // this thread's columns
  int lowest_position_;                        // of the unit's rows: keys up to it need no mask
};

// The other one, which waits for weights.
template <class S>
class LatentFollower : public LatentConsumer<S> {
 public:
  using LatentConsumer<S>::LatentConsumer;

  __device__ void run(int& tile) {
    const int count = this->piece_.end - this->piece_.first;
    for (int i = 0; i < count; ++i, ++tile) {
      asm volatile("bar.sync 2, %0;" ::"n"(kLatentConsumers) : "memory");  // the leader's weights are there
      const float* correction = this->shared_.correction + first_row_of_thread();
      this->rescale({correction[0], correction[8]});
      this->wait_full(tile);
      this->start_values(tile);
      wgmma_wait<0>();
      use_after_wait(this->sums_);
      this->release(tile);
      asm volatile("bar.arrive 3, %0;" ::"n"(kLatentConsumers) : "memory");
    }
  }
};

}  // namespace octet
