// Paged attention with an online softmax (Milakov & Gimelshein 2018; Dao et al. 2022): keys and values are decoded once
// per block for all query heads of a KV head and a tile of queries.
//
// Why a row's bits depend on its own query and keys only. Keys form blocks of kBlock and partitions of kPartition by
// their absolute position. Each row keeps its own maximum, sum and accumulator per partition; a block outside its range
// leaves them untouched, keys outside its range are never multiplied in, every score and every output element has one
// fixed order of additions, and partitions merge in order. So tiles, chunks, the batch and the number of threads only
// decide who computes what. Long contexts with few rows spread their partitions over the threads.
#pragma once

#include <limits>
#include <string>

#include "octet/kernels/cpu/elementwise.h"
#include "octet/kernels/cpu/split.h"
#include "octet/kernels/cpu/vector_math.h"
#include "octet/ops/ops.h"

namespace octet {

struct AttentionConfig {
  static constexpr int64_t kBlock = 64;       // keys per step of the online softmax
  static constexpr int64_t kPartition = 256;  // keys per independent part of a row
  static constexpr int64_t kTileRows = 48;    // rows (queries x heads of a group) per tile, where a group is not larger
  static constexpr int kRowsAtOnce = 3;
  static constexpr int kColumnsAtOnce = 4;  // vectors
};

// Queries first_row .. + num_queries of one sequence times the query heads of one KV head.
struct AttentionTile {
  int64_t sequence;
  int64_t kv_head;
  int64_t first_row;
  int64_t num_queries;
  int64_t first_position;
  int64_t key_begin;  // what any of the queries sees
  int64_t key_end;
};

// Running softmax of the rows of a tile: maxima [R], sums [R], accumulators [R][stride].
struct AttentionState {
  float* maximum;
  float* sum;
  float* acc;
};

struct KeyRange {
  int64_t begin;
  int64_t end;
  bool operator==(const KeyRange&) const = default;
};

// The shape of a call and the layout of its scratch.
template <class V>
struct AttentionPlan {
  const PagedAttentionOp& op;
  int64_t head_dim = op.head_dim();
  int64_t value_dim = op.value_dim();
  int64_t stride = padded(head_dim);  // floats per staged row
  int64_t group = op.num_heads() / op.num_kv_heads();
  int64_t tile_queries = std::max<int64_t>(1, AttentionConfig::kTileRows / group);
  int64_t max_rows = tile_queries * group;

  static int64_t padded(int64_t dim) { return (dim + V::kLanes - 1) / V::kLanes * V::kLanes; }
  int64_t state_floats() const { return (max_rows * (stride + 2) + 15) / 16 * 16; }
  int64_t tile_floats() const {
    return AttentionConfig::kBlock * stride + max_rows * (stride + AttentionConfig::kBlock) + alpha_floats() +
           2 * state_floats();
  }
  int64_t alpha_floats() const { return (max_rows + 15) / 16 * 16; }
  AttentionState state_at(float* p) const {
    return {.maximum = p + max_rows * stride, .sum = p + max_rows * (stride + 1), .acc = p};
  }
  KeyRange visible(const AttentionTile& tile, int64_t row) const {
    const int64_t position = tile.first_position + row / group;
    return {op.sliding_window > 0 ? std::max<int64_t>(0, position - op.sliding_window + 1) : 0, position + 1};
  }
};

template <class V>
class AttentionWorker {
 public:
  AttentionWorker(const AttentionPlan<V>& plan, float* scratch) : plan_(plan), op_(plan.op), stride_(plan.stride) {
    kv_ = scratch;
    q_ = kv_ + AttentionConfig::kBlock * stride_;
    scores_ = q_ + plan.max_rows * stride_;
    alpha_ = scores_ + plan.max_rows * AttentionConfig::kBlock;
    running_ = plan.state_at(alpha_ + plan.alpha_floats());
    part_ = plan.state_at(alpha_ + plan.alpha_floats() + plan.state_floats());
  }

  // The whole tile: partitions in order, merged in order, written to out.
  void run(const AttentionTile& tile) {
    stage_queries(tile);
    clear(tile, running_);
    const int64_t first = tile.key_begin / AttentionConfig::kPartition;
    for (int64_t p = first; p * AttentionConfig::kPartition < tile.key_end; ++p) {
      const AttentionState& state = p == first ? running_ : part_;
      if (p != first) clear(tile, state);
      attend(tile, p, state);
      if (p != first) merge(tile, state, running_);
    }
    write(tile, running_);
  }

  // One partition of a tile, for a later merge.
  void run_partition(const AttentionTile& tile, int64_t partition, const AttentionState& state) {
    stage_queries(tile);
    clear(tile, state);
    attend(tile, partition, state);
  }

  void merge(const AttentionTile& tile, const AttentionState& from, const AttentionState& into) const {
    const int64_t rows = tile.num_queries * plan_.group;
    for (int64_t r = 0; r < rows; ++r) {
      if (from.sum[r] == 0.0f) continue;  // saw no key; a sum of a row that did is at least 1
      float* to = into.acc + r * stride_;
      const float* acc = from.acc + r * stride_;
      if (into.sum[r] == 0.0f) {
        std::memcpy(to, acc, static_cast<size_t>(stride_) * sizeof(float));
        into.maximum[r] = from.maximum[r];
        into.sum[r] = from.sum[r];
        continue;
      }
      const float most = std::max(into.maximum[r], from.maximum[r]);
      const auto keep = exp<V>(V::set(into.maximum[r] - most));
      const auto gain = exp<V>(V::set(from.maximum[r] - most));
      for (int64_t d = 0; d < stride_; d += V::kLanes) {
        V::store(to + d, V::fma(V::load(to + d), keep, V::mul(V::load(acc + d), gain)));
      }
      into.sum[r] = into.sum[r] * V::first(keep) + from.sum[r] * V::first(gain);
      into.maximum[r] = most;
    }
  }

  // out = acc / sum * v_scale
  void write(const AttentionTile& tile, const AttentionState& state) const {
    for (int64_t r = 0; r < tile.num_queries * plan_.group; ++r) {
      const float factor = state.sum[r] == 0.0f ? 0.0f : op_.v_scale_of(tile.kv_head) / state.sum[r];
      const int64_t head = tile.kv_head * plan_.group + r % plan_.group;
      float* to = op_.out.template row<float>(tile.first_row + r / plan_.group) + head * plan_.value_dim;
      const float* acc = state.acc + r * stride_;
      const auto by = V::set(factor);
      int64_t d = 0;
      for (; d + V::kLanes <= plan_.value_dim; d += V::kLanes) V::store(to + d, V::mul(V::load(acc + d), by));
      if (d < plan_.value_dim) store_partial<V>(to + d, V::mul(V::load(acc + d), by), plan_.value_dim - d);
    }
  }

 private:
  void clear(const AttentionTile& tile, const AttentionState& state) const {
    const int64_t rows = tile.num_queries * plan_.group;
    std::fill(state.maximum, state.maximum + rows, -std::numeric_limits<float>::infinity());
    std::fill(state.sum, state.sum + rows, 0.0f);
    std::fill(state.acc, state.acc + rows * stride_, 0.0f);
  }

  // Both scales go into q: one multiplication per element instead of one per score.
  void stage_queries(const AttentionTile& tile) {
    const float factor = op_.softmax_scale * op_.k_scale_of(tile.kv_head);
    for (int64_t i = 0; i < tile.num_queries; ++i) {
      const float* from = op_.q.template row<float>(tile.first_row + i) + tile.kv_head * plan_.group * plan_.head_dim;
      for (int64_t h = 0; h < plan_.group; ++h) {
        convert_row<V>(from + h * plan_.head_dim, plan_.head_dim, factor, q_ + (i * plan_.group + h) * stride_);
      }
    }
  }

  void attend(const AttentionTile& tile, int64_t partition, const AttentionState& state) {
    switch (op_.k_cache.dtype) {
      case DType::kF32:
        return attend_as<float>(tile, partition, state);
      case DType::kBF16:
        return attend_as<BF16>(tile, partition, state);
      case DType::kF8E4M3:
        return attend_as<F8E4M3>(tile, partition, state);
      default:
        return attend_as<F8E5M2>(tile, partition, state);
    }
  }
  template <class C>
  void attend_as(const AttentionTile& tile, int64_t partition, const AttentionState& state) {
    constexpr int64_t kBlock = AttentionConfig::kBlock;
    const int64_t end = std::min((partition + 1) * AttentionConfig::kPartition, tile.key_end);
    for (int64_t block = partition * AttentionConfig::kPartition; block < end; block += kBlock) {
      const KeyRange keys{std::max(block, tile.key_begin) - block, std::min(block + kBlock, end) - block};
      if (keys.begin >= keys.end) continue;
      prefetch<C>(op_.v_cache, tile, block, keys);
      gather<C>(op_.k_cache, tile, block, keys);
      score(tile, keys);
      softmax(tile, block, state);
      gather<C>(op_.v_cache, tile, block, keys);
      accumulate(tile, block, state);
    }
  }

  // fn(first, rows, count) for runs of rows that lie one after the other in the cache: keys first .. of the block.
  template <class C, class Fn>
  [[gnu::always_inline]] inline void for_cache_rows(const ConstTensor& cache, const AttentionTile& tile, int64_t block,
                                                    KeyRange keys, Fn&& fn) const {
    const int32_t* table = op_.block_table.template row<int32_t>(tile.sequence);
    const int64_t size = op_.block_size(), dim = plan_.head_dim;
    for (int64_t j = keys.begin; j < keys.end;) {
      const int64_t position = block + j;
      const C* rows = cache.template row<C>(table[position / size]) + (tile.kv_head * size + position % size) * dim;
      const int64_t count = std::min(keys.end - j, size - position % size);
      fn(j, rows, count);
      j += count;
    }
  }

  // The hardware follows no rows from block to block; so values are on their way while keys are multiplied.
  template <class C>
  void prefetch(const ConstTensor& cache, const AttentionTile& tile, int64_t block, KeyRange keys) const {
    for_cache_rows<C>(cache, tile, block, keys, [&](int64_t, const C* rows, int64_t count) {
      const auto* bytes = reinterpret_cast<const char*>(rows);
      const int64_t num_bytes = count * plan_.head_dim * static_cast<int64_t>(sizeof(C));
      for (int64_t i = 0; i < num_bytes; i += 64) __builtin_prefetch(bytes + i);
    });
  }

  // Keys `keys` of the block as F32 rows of kv_.
  template <class C>
  void gather(const ConstTensor& cache, const AttentionTile& tile, int64_t block, KeyRange keys) {
    for_cache_rows<C>(cache, tile, block, keys, [&](int64_t first, const C* rows, int64_t count) {
      for (int64_t j = 0; j < count; ++j) decode_row(rows + j * plan_.head_dim, kv_ + (first + j) * stride_);
    });
  }
  template <class C>
  [[gnu::always_inline]] inline void decode_row(const C* from, float* to) const {
    int64_t d = 0;
    for (; d + V::kLanes <= plan_.head_dim; d += V::kLanes) V::store(to + d, load_exact<V>(from + d));
    if (d < plan_.head_dim) V::store(to + d, load_exact_partial<V>(from + d, plan_.head_dim - d));
  }

  // scores_[r][j] = q_r . k_j, groups of four keys; the rows of kv_ round the range are scored too and not used.
  void score(const AttentionTile& tile, KeyRange keys) {
    const int64_t rows = tile.num_queries * plan_.group;
    const int64_t begin = keys.begin / 4 * 4;
    int64_t r = 0;
    for (; r + 3 <= rows; r += 3) score_rows<3>(r, begin, keys.end);
    if (rows - r == 2) score_rows<2>(r, begin, keys.end);
    if (rows - r == 1) score_rows<1>(r, begin, keys.end);
  }
  template <int R>
  void score_rows(int64_t row, int64_t begin, int64_t end) {
    const float* q = q_ + row * stride_;
    for (int64_t j = begin; j < end; j += 4) {
      typename V::Float sums[R][4];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) sums[r][i] = V::zero();
      }
      const float* k = kv_ + j * stride_;
      for (int64_t d = 0; d < stride_; d += V::kLanes) {
        typename V::Float query[R];
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) query[r] = V::load(q + r * stride_ + d);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
          const auto key = V::load(k + i * stride_ + d);
#pragma GCC unroll 4
          for (int r = 0; r < R; ++r) sums[r][i] = V::fma(query[r], key, sums[r][i]);
        }
      }
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        _mm_storeu_ps(scores_ + (row + r) * AttentionConfig::kBlock + j,
                      V::sum4(sums[r][0], sums[r][1], sums[r][2], sums[r][3]));
      }
    }
  }

  KeyRange range_in_block(const AttentionTile& tile, int64_t row, int64_t block) const {
    const KeyRange seen = plan_.visible(tile, row);
    return {std::max<int64_t>(seen.begin - block, 0), std::min(seen.end - block, AttentionConfig::kBlock)};
  }

  // Scores become weights; alpha_[r] is what the accumulator so far must be multiplied by.
  void softmax(const AttentionTile& tile, int64_t block, const AttentionState& state) {
    constexpr int64_t kBlock = AttentionConfig::kBlock;
    constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
    for (int64_t r = 0; r < tile.num_queries * plan_.group; ++r) {
      const KeyRange keys = range_in_block(tile, r, block);
      if (keys.begin >= keys.end) continue;
      float* scores = scores_ + r * kBlock;
      std::fill(scores, scores + keys.begin, kMinusInfinity);
      std::fill(scores + keys.end, scores + kBlock, kMinusInfinity);
      auto most = V::set(state.maximum[r]);
      for (int64_t j = 0; j < kBlock; j += V::kLanes) most = V::max(V::load(scores + j), most);
      const float maximum = V::max_lane(most);
      const auto by = V::set(maximum);
      auto sum = V::zero();
      for (int64_t j = 0; j < kBlock; j += V::kLanes) {
        const auto weight = exp<V>(V::sub(V::load(scores + j), by));
        V::store(scores + j, weight);
        sum = V::add(sum, weight);
      }
      alpha_[r] = V::first(exp<V>(V::set(state.maximum[r] - maximum)));
      state.sum[r] = state.sum[r] * alpha_[r] + V::sum(sum);
      state.maximum[r] = maximum;
    }
  }

  // acc_r = acc_r * alpha_r + sum_j weight_rj * v_j over the keys that row r sees.
  void accumulate(const AttentionTile& tile, int64_t block, const AttentionState& state) {
    const int64_t rows = tile.num_queries * plan_.group;
    for (int64_t r = 0; r < rows;) {
      const KeyRange keys = range_in_block(tile, r, block);
      int64_t same = 1;
      while (same < AttentionConfig::kRowsAtOnce && r + same < rows && range_in_block(tile, r + same, block) == keys)
        ++same;
      if (keys.begin < keys.end) {
        if (same == 3) accumulate_rows<3>(r, keys, state.acc);
        if (same == 2) accumulate_rows<2>(r, keys, state.acc);
        if (same == 1) accumulate_rows<1>(r, keys, state.acc);
      }
      r += same;
    }
  }
  template <int R>
  void accumulate_rows(int64_t row, KeyRange keys, float* acc) {
    constexpr int kColumns = AttentionConfig::kColumnsAtOnce;
    const int64_t columns = plan_.padded(plan_.value_dim);
    int64_t d = 0;
    for (; d + kColumns * V::kLanes <= columns; d += kColumns * V::kLanes)
      accumulate_columns<R, kColumns>(row, d, keys, acc);
    for (; d < columns; d += V::kLanes) accumulate_columns<R, 1>(row, d, keys, acc);
  }
  template <int R, int C>
  [[gnu::always_inline]] inline void accumulate_columns(int64_t row, int64_t d, KeyRange keys, float* acc) {
    typename V::Float sums[R][C];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const auto alpha = V::set(alpha_[row + r]);
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) sums[r][c] = V::mul(V::load(acc + (row + r) * stride_ + d + c * V::kLanes), alpha);
    }
    const float* weights = scores_ + row * AttentionConfig::kBlock;
    const float* v = kv_ + d;
    for (int64_t j = keys.begin; j < keys.end; ++j) {
      typename V::Float weight[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) weight[r] = V::set(weights[r * AttentionConfig::kBlock + j]);
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) {
        const auto value = V::load(v + j * stride_ + c * V::kLanes);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) sums[r][c] = V::fma(weight[r], value, sums[r][c]);
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) V::store(acc + (row + r) * stride_ + d + c * V::kLanes, sums[r][c]);
    }
  }

  const AttentionPlan<V>& plan_;
  const PagedAttentionOp& op_;
  int64_t stride_;
  float* kv_;      // one block of keys, then of values [kBlock][stride]
  float* q_;       // [R][stride]
  float* scores_;  // [R][kBlock]
  float* alpha_;   // [R]
  AttentionState running_;
  AttentionState part_;
};

inline int64_t attention_num_partitions(const AttentionTile& tile) {
  if (tile.key_begin >= tile.key_end) return 0;
  return (tile.key_end - 1) / AttentionConfig::kPartition - tile.key_begin / AttentionConfig::kPartition + 1;
}

// Fills `tiles` (null: only counts); returns how many there are.
template <class V>
int64_t make_tiles(const AttentionPlan<V>& plan, AttentionTile* tiles) {
  const int32_t* query_start = plan.op.query_start.template data<int32_t>();
  const int32_t* seq_lens = plan.op.seq_lens.template data<int32_t>();
  int64_t count = 0;
  for (int64_t s = 0; s < plan.op.num_sequences(); ++s) {
    const int64_t num_queries = query_start[s + 1] - query_start[s];
    for (int64_t i = 0; i < num_queries; i += plan.tile_queries) {
      for (int64_t h = 0; h < plan.op.num_kv_heads(); ++h, ++count) {
        if (!tiles) continue;
        AttentionTile tile{.sequence = s,
                           .kv_head = h,
                           .first_row = query_start[s] + i,
                           .num_queries = std::min(plan.tile_queries, num_queries - i),
                           .first_position = seq_lens[s] - num_queries + i,
                           .key_begin = 0,
                           .key_end = 0};
        tile.key_begin = plan.visible(tile, 0).begin;
        tile.key_end = tile.first_position + tile.num_queries;
        tiles[count] = tile;
      }
    }
  }
  return count;
}

// Few tiles with long contexts: partitions in parallel, then each tile's merge.
template <class V>
void run_attention_split(const AttentionPlan<V>& plan, const Launch& launch, const AttentionTile* tiles,
                         int64_t num_tiles, int64_t num_partitions, float* states, float* own) {
  const auto scratch_of = [&](int thread) {
    if (thread == 0) return own;
    return reinterpret_cast<float*>(launch.scratch->get(thread, plan.tile_floats() * int64_t{sizeof(float)}));
  };
  const auto state_of = [&](int64_t tile, int64_t p) {
    return plan.state_at(states + (tile * num_partitions + p) * plan.state_floats());
  };
  launch.threads->parallel_for(num_tiles * num_partitions, 1, [&](int thread, int64_t begin, int64_t end) {
    AttentionWorker<V> worker(plan, scratch_of(thread));
    for (int64_t i = begin; i < end; ++i) {
      const AttentionTile& tile = tiles[i / num_partitions];
      const int64_t p = i % num_partitions;
      if (p >= attention_num_partitions(tile)) continue;
      worker.run_partition(tile, tile.key_begin / AttentionConfig::kPartition + p, state_of(i / num_partitions, p));
    }
  });
  AttentionWorker<V> worker(plan, own);
  for (int64_t i = 0; i < num_tiles; ++i) {
    const AttentionState into = state_of(i, 0);
    for (int64_t p = 1; p < attention_num_partitions(tiles[i]); ++p) worker.merge(tiles[i], state_of(i, p), into);
    worker.write(tiles[i], into);
  }
}

template <class V>
void run_paged_attention(const PagedAttentionOp& op, const Launch& launch) {
  const AttentionPlan<V> plan{op};
  const int64_t num_tiles = make_tiles<V>(plan, nullptr);
  if (num_tiles == 0) return;
  const int64_t tiles_bytes = (num_tiles * int64_t{sizeof(AttentionTile)} + 63) / 64 * 64;
  const int64_t tile_bytes = plan.tile_floats() * int64_t{sizeof(float)};
  auto* tiles = reinterpret_cast<AttentionTile*>(launch.scratch->get(0, tiles_bytes + tile_bytes));
  make_tiles<V>(plan, tiles);
  int64_t num_partitions = 1;
  for (int64_t i = 0; i < num_tiles; ++i) num_partitions = std::max(num_partitions, attention_num_partitions(tiles[i]));
  const int num_threads = launch.threads->num_threads();

  if (num_threads > 1 && num_tiles < 4 * num_threads && num_partitions > 1) {
    const int64_t states_bytes = num_tiles * num_partitions * plan.state_floats() * int64_t{sizeof(float)};
    std::byte* scratch = launch.scratch->get(0, tiles_bytes + tile_bytes + states_bytes);
    tiles = reinterpret_cast<AttentionTile*>(scratch);
    make_tiles<V>(plan, tiles);
    auto* own = reinterpret_cast<float*>(scratch + tiles_bytes);
    auto* states = reinterpret_cast<float*>(scratch + tiles_bytes + tile_bytes);
    run_attention_split<V>(plan, launch, tiles, num_tiles, num_partitions, states, own);
  } else {
    auto* own = reinterpret_cast<float*>(reinterpret_cast<std::byte*>(tiles) + tiles_bytes);
    launch.threads->parallel_for(num_tiles, 1, [&](int thread, int64_t begin, int64_t end) {
      float* scratch = thread == 0 ? own : reinterpret_cast<float*>(launch.scratch->get(thread, tile_bytes));
      AttentionWorker<V> worker(plan, scratch);
      for (int64_t i = begin; i < end; ++i) worker.run(tiles[i]);
    });
  }
  if (!op.quantized.data) return;
  for_rows(launch, op.out.dim(0), op.out.dim(1), [&](int, int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) quantize_row<V>(op.out.template row<float>(t), op.quantized, t);
  });
}

}  // namespace octet
