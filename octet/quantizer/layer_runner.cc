#include "octet/quantizer/layer_runner.h"

#include <algorithm>
#include <cmath>

#include "octet/base/error.h"

namespace octet {
namespace {

Launch make_launch(ThreadPool& threads, ThreadScratch& scratch) {
  Launch launch = describing_launch(Device{}, threads);
  launch.scratch = &scratch;
  return launch;
}

int64_t num_blocks(const SequenceBatch& batch, int64_t block_size) {
  int64_t count = 0;
  for (const auto& sequence : batch.sequences)
    count += (static_cast<int64_t>(sequence.size()) + block_size - 1) / block_size;
  return count;
}

}  // namespace

CpuBackend::CpuBackend(ThreadPool& threads)
    : threads_(threads),
      scratch_(threads.num_threads()),
      backend_(kernel_table(Device{}), make_launch(threads, scratch_), activation_dtype(Device{})) {}

int64_t SequenceBatch::num_tokens() const {
  int64_t count = 0;
  for (const auto& sequence : sequences) count += static_cast<int64_t>(sequence.size());
  return count;
}

std::vector<SequenceBatch> batch_sequences(std::span<const std::vector<int32_t>> sequences, int64_t max_tokens) {
  std::vector<SequenceBatch> batches;
  for (const std::vector<int32_t>& sequence : sequences) {
    const auto size = static_cast<int64_t>(sequence.size());
    if (batches.empty() || batches.back().num_tokens() + size > max_tokens) batches.emplace_back();
    batches.back().sequences.push_back(sequence);
  }
  return batches;
}

LayerRunner::LayerRunner(const LayerSource& source, const CpuBackend& backend, std::span<const SequenceBatch> batches)
    : backend_(backend) {
  WeightSource weights;
  weights.files = source.files;
  weights.quant = source.quant;
  weights.threads = &backend.threads();
  weights.plain_dtype = source.config->dtype;
  weights.layers = source.layers;
  weights.allocate = [this](DType dtype, Shape shape, std::string_view name) {
    parameters_.emplace_back(Device{}, std::max<int64_t>(1, shape.num_elements() * dtype_bytes(dtype)), name);
    return parameters_.back().tensor(dtype, shape);
  };
  model_ = find_arch(*source.config).load(*source.config, Weights(weights), *backend);
  int64_t most_tokens = 1, most_blocks = 1;
  for (const SequenceBatch& batch : batches) {
    most_tokens = std::max(most_tokens, batch.num_tokens());
    most_blocks = std::max(most_blocks, num_blocks(batch, kBlockSize));
  }
  KvCacheLayout layout = model_->kv_layout();
  layout.block_size = kBlockSize;
  layout.dtype = source.kv_dtype;
  kv_.emplace(Device{}, layout, most_blocks);
  for (int64_t layer = 0; layer < layout.num_layers; ++layer) kv_->set_scales(layer, source.k_scale, source.v_scale);
  arena_.emplace(Device{}, model_->activation_bytes(most_tokens, kMaxLogitRows));
}

Batch LayerRunner::make_batch(const SequenceBatch& batch) {
  std::vector<int32_t> tokens, positions, slots, starts = {0}, lengths, table;
  size_t most_blocks = 1;
  for (const auto& sequence : batch.sequences)
    most_blocks = std::max(most_blocks, (sequence.size() + kBlockSize - 1) / kBlockSize);
  int32_t next_block = 0;
  for (const std::vector<int32_t>& sequence : batch.sequences) {
    const auto length = static_cast<int32_t>(sequence.size());
    for (int32_t i = 0; i < length; ++i) {
      tokens.push_back(sequence[static_cast<size_t>(i)]);
      positions.push_back(i);
      slots.push_back(next_block * static_cast<int32_t>(kBlockSize) + i);  // its blocks lie one after the other
    }
    const auto blocks = static_cast<int32_t>((length + kBlockSize - 1) / kBlockSize);
    for (size_t b = 0; b < most_blocks; ++b)
      table.push_back(static_cast<int32_t>(b) < blocks ? next_block + static_cast<int32_t>(b) : 0);
    next_block += blocks;
    starts.push_back(static_cast<int32_t>(tokens.size()));
    lengths.push_back(length);
  }
  const auto t = static_cast<int64_t>(tokens.size());
  const auto s = static_cast<int64_t>(lengths.size());
  integers_ = {std::move(tokens), std::move(positions), std::move(slots),
               std::move(starts), std::move(lengths),   std::move(table)};
  const auto tensor = [this](size_t i, Shape shape) {
    return Tensor(reinterpret_cast<std::byte*>(integers_[i].data()), DType::kI32, shape);
  };
  return Batch{.token_ids = tensor(0, Shape{t}),
               .positions = tensor(1, Shape{t}),
               .slot_mapping = tensor(2, Shape{t}),
               .query_start = tensor(3, Shape{s + 1}),
               .seq_lens = tensor(4, Shape{s}),
               .block_table = tensor(5, Shape{s, static_cast<int64_t>(most_blocks)})};
}

Step LayerRunner::make_step(const Batch& batch) {
  arena_->reset();
  return Step{.backend = *backend_, .arena = *arena_, .kv = *kv_, .comm = *comm_, .batch = batch};
}

ConstTensor LayerRunner::run(const SequenceBatch& batch, Tensor residual, const ObserveInput& observe,
                             ObservedExperts experts) {
  Step step = make_step(make_batch(batch));
  step.residual = residual;
  step.observe_input = observe;
  step.observed_experts = experts;
  batch_ = &batch;
  return model_->forward(step);
}

LayerRunner::CacheMaxima LayerRunner::cache_maxima(int64_t layer) const {
  OCTET_CHECK(batch_ != nullptr && kv_->layout().dtype == DType::kF32);
  const int64_t heads = kv_->layout().num_kv_heads, dim = kv_->layout().head_dim;
  CacheMaxima maxima{.k = std::vector<float>(static_cast<size_t>(heads), 0.0f), .v = {}};
  maxima.v = maxima.k;
  const auto take = [&](Tensor cache, int64_t slot, std::vector<float>& largest) {
    const int64_t block = slot / kBlockSize, offset = slot % kBlockSize;
    for (int64_t head = 0; head < heads; ++head) {
      const float* row = cache.data<float>() + ((block * heads + head) * kBlockSize + offset) * dim;
      float& most = largest[static_cast<size_t>(head)];
      for (int64_t d = 0; d < dim; ++d) most = std::max(most, std::abs(row[d]));
    }
  };
  for (const int32_t slot : integers_[2]) {
    take(kv_->k(layer), slot, maxima.k);
    take(kv_->v(layer), slot, maxima.v);
  }
  return maxima;
}

ConstTensor LayerRunner::logits(ConstTensor hidden_rows) {
  OCTET_CHECK(hidden_rows.dim(0) <= kMaxLogitRows);
  Step step = make_step({});
  return model_->logits(step, hidden_rows);
}

}  // namespace octet
