#include "octet/engine/runner.h"

#include <algorithm>

#include "octet/base/error.h"

namespace octet {
namespace {

constexpr int64_t kInt32 = 4;  // bytes, and those of an f32

int64_t max_blocks_per_sequence(int64_t max_model_len, int64_t block_size) {
  return (max_model_len + block_size - 1) / block_size;
}

Launch make_launch(Device device, ThreadPool& threads, ThreadScratch& scratch) {
  return {.stream = {.device = device, .handle = nullptr},
          .threads = &threads,
          .scratch = &scratch,
          .features = cpu_features()};
}

}  // namespace

Runner::Runner(const ModelSource& source, Comm& comm, int num_threads)
    : comm_(comm),
      threads_(num_threads),
      thread_scratch_(num_threads),
      backend_(kernel_table(source.device), make_launch(source.device, threads_, thread_scratch_), DType::kF32),
      hidden_size_(source.config.hidden_size),
      sampling_scratch_(static_cast<size_t>(num_threads)) {
  WeightSource weights;
  weights.files = source.files;
  weights.quant = &source.quant;
  weights.threads = &threads_;
  weights.plain_dtype = source.plain_dtype;
  weights.rank = comm_.rank();
  weights.world_size = comm_.world_size();
  weights.on_progress = source.on_progress;
  weights.allocate = [this, &source](DType dtype, Shape shape, std::string_view name) {
    num_parameters_ += shape.num_elements();
    buffers_.emplace_back(source.device, shape.num_elements() * dtype_bytes(dtype), name);
    return buffers_.back().tensor(dtype, shape);
  };
  weights.all_reduce_max = [this](std::span<float> values) {
    const Shape shape{static_cast<int64_t>(values.size())};
    comm_.all_reduce_max(Tensor(std::as_writable_bytes(values).data(), DType::kF32, shape), backend_.launch().stream);
  };
  weights.runs_fast = [this](const QuantFormat& weight, const QuantFormat& activation, int64_t n, int64_t k) {
    return has_fast_matmul(backend_, weight, activation, n, k);
  };
  model_ = find_arch(source.config).load(source.config, Weights(weights), backend_);
  if (comm_.rank() == 0) warn_of_dequantised(weights);
  weight_bytes_ = weights.weight_bytes;
  scale_bytes_ = weights.scale_bytes;
}

int64_t Runner::activation_bytes(const StepLimits& limits, int64_t block_size) const {
  constexpr int64_t kAlignment = 64, kNumTensors = 16;
  const int64_t blocks = max_blocks_per_sequence(limits.max_model_len, block_size);
  const int64_t batch = 3 * limits.max_tokens + limits.max_sequences * (blocks + 2) + 1;
  const int64_t gathered = kLogitRows * (1 + hidden_size_);  // indices, and f32 rows of hidden states
  return (batch + gathered) * kInt32 + kNumTensors * kAlignment +
         model_->activation_bytes(limits.max_tokens, kLogitRows);
}

void Runner::reserve(const StepLimits& limits, const KvCacheLayout& layout, int64_t num_blocks) {
  arena_.emplace(backend_.device(), activation_bytes(limits, layout.block_size));
  kv_.emplace(backend_.device(), layout, num_blocks);
}

StepResult Runner::run(const StepPlan& plan) {
  take_notes(plan);
  arena_->reset();
  Step step{.backend = backend_, .arena = *arena_, .kv = *kv_, .comm = comm_, .batch = make_batch(plan), .observe = {}};
  const Tensor hidden = model_->forward(step);
  const std::vector<LogitRow> rows = logit_rows(plan);
  StepResult result;
  result.chunks.resize(plan.chunks.size());
  for (size_t begin = 0; begin < rows.size(); begin += kLogitRows) {
    run_slice(step, hidden, plan, std::span(rows).subspan(begin, std::min<size_t>(kLogitRows, rows.size() - begin)),
              result);
  }
  for (SequenceId id : plan.ends) states_.erase(id);
  return result;
}

void Runner::take_notes(const StepPlan& plan) {
  for (const SequenceStart& start : plan.starts) {
    const Request& request = *start.request;
    const std::span<const int32_t> eos = request.eos_token_ids;
    states_.emplace(
        start.sequence,
        State{start.request, SamplingState({.params = request.sampling,
                                            .eos_token_ids = request.sampling.ignore_eos ? eos.first(0) : eos,
                                            .prompt_token_ids = request.prompt_token_ids,
                                            .seed = start.seed,
                                            .index = start.index})});
  }
}

Batch Runner::make_batch(const StepPlan& plan) {
  const auto num_sequences = static_cast<int64_t>(plan.chunks.size());
  const int64_t block_size = kv_->layout().block_size;
  int32_t most_blocks = 1;
  for (const StepChunk& chunk : plan.chunks) most_blocks = std::max(most_blocks, chunk.num_blocks);
  auto make = [&](Shape shape) { return arena_->make(DType::kI32, shape); };
  const Tensor token_ids = make({plan.num_tokens}), positions = make({plan.num_tokens}),
               slots = make({plan.num_tokens});
  const Tensor query_start = make({num_sequences + 1}), seq_lens = make({num_sequences});
  const Tensor block_table = make({num_sequences, most_blocks});
  int64_t row = 0;
  for (int64_t s = 0; s < num_sequences; ++s) {
    const StepChunk& chunk = plan.chunks[static_cast<size_t>(s)];
    const auto blocks = plan.blocks_of(chunk);
    int32_t* table = block_table.row<int32_t>(s);
    std::copy(blocks.begin(), blocks.end(), table);
    std::fill(table + blocks.size(), table + most_blocks, 0);  // never read; a valid block all the same
    query_start.data<int32_t>()[s] = static_cast<int32_t>(row);
    seq_lens.data<int32_t>()[s] = static_cast<int32_t>(chunk.end());
    int64_t position = chunk.begin;
    for (int32_t token_id : plan.tokens_of(chunk)) {
      OCTET_CHECK(token_id >= 0);
      token_ids.data<int32_t>()[row] = token_id;
      positions.data<int32_t>()[row] = static_cast<int32_t>(position);
      const int64_t block = blocks[static_cast<size_t>(position / block_size)];
      slots.data<int32_t>()[row] = static_cast<int32_t>(block * block_size + position % block_size);
      ++position;
      ++row;
    }
  }
  OCTET_CHECK(row == plan.num_tokens);
  query_start.data<int32_t>()[num_sequences] = static_cast<int32_t>(row);
  return {.token_ids = token_ids,
          .positions = positions,
          .slot_mapping = slots,
          .query_start = query_start,
          .seq_lens = seq_lens,
          .block_table = block_table};
}

std::vector<Runner::LogitRow> Runner::logit_rows(const StepPlan& plan) const {
  std::vector<LogitRow> rows;
  int64_t first_row = 0;
  for (size_t c = 0; c < plan.chunks.size(); ++c) {
    const StepChunk& chunk = plan.chunks[c];
    auto add = [&](int64_t position, bool scored, bool sampled) {
      rows.push_back({.row = static_cast<int32_t>(first_row + position - chunk.begin),
                      .chunk = static_cast<int32_t>(c),
                      .position = position,
                      .scored = scored,
                      .sampled = sampled});
    };
    const int64_t last = chunk.sample == StepChunk::Sample::kYes ? chunk.end() - 1 : -1;
    if (chunk.score_begin != kNothingScored) {
      const auto length = static_cast<int64_t>(states_.at(chunk.sequence).request->prompt_token_ids.size());
      for (int64_t p = chunk.score_begin; p < std::min(chunk.end(), length); ++p) add(p, true, p == last);
    }
    if (last >= 0 && (rows.empty() || rows.back().position != last || rows.back().chunk != static_cast<int32_t>(c)))
      add(last, false, true);
    first_row += chunk.num_tokens;
  }
  return rows;
}

void Runner::run_slice(Step& step, ConstTensor hidden, const StepPlan& plan, std::span<const LogitRow> rows,
                       StepResult& result) {
  const Arena::Scope scope(*arena_);
  const auto num_rows = static_cast<int64_t>(rows.size());
  const Tensor indices = arena_->make(DType::kI32, {num_rows});
  for (int64_t r = 0; r < num_rows; ++r) indices.data<int32_t>()[r] = rows[static_cast<size_t>(r)].row;
  const Tensor hidden_rows = arena_->make(hidden.dtype, {num_rows, hidden.dim(1)});
  backend_(GatherRowsOp{.out = hidden_rows, .x = hidden, .rows = indices});
  const Tensor logits = model_->logits(step, hidden_rows);
  if (comm_.rank() != 0) return;
  auto row_of = [&](int64_t r) { return std::span(logits.row<float>(r), static_cast<size_t>(model_->vocab_size())); };
  // Callbacks in order and before sampling, which overwrites rows.
  for (int64_t r = 0; r < num_rows; ++r) {
    const LogitRow& row = rows[static_cast<size_t>(r)];
    const Request& request = *states_.at(plan.chunks[static_cast<size_t>(row.chunk)].sequence).request;
    if (row.scored && request.on_logits) request.on_logits(row.position, row_of(r));
  }
  // Room for results first: rows of one chunk may be used by several threads.
  std::vector<PositionLogprobs> prompt_logprobs(rows.size());
  std::vector<SampleOutcome> outcomes(rows.size(), SampleOutcome::kToken);
  threads_.parallel_for(num_rows, 1, [&](int thread, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const auto i = static_cast<size_t>(r);
      ChunkResult& chunk_result = result.chunks[static_cast<size_t>(rows[i].chunk)];
      outcomes[i] = use_row(plan, rows[i], row_of(r), thread, prompt_logprobs[i], chunk_result);
    }
  });
  for (size_t i = 0; i < rows.size(); ++i) {
    ChunkResult& chunk_result = result.chunks[static_cast<size_t>(rows[i].chunk)];
    if (!prompt_logprobs[i].empty()) chunk_result.prompt_logprobs.push_back(std::move(prompt_logprobs[i]));
    if (outcomes[i] != SampleOutcome::kToken) chunk_result.sampled.outcome = outcomes[i];
  }
}

// Runs on a thread of the pool. Only the row that samples touches the sequence's state and chunk_result.sampled.
SampleOutcome Runner::use_row(const StepPlan& plan, const LogitRow& row, std::span<float> logits, int thread,
                              PositionLogprobs& prompt_logprobs, ChunkResult& chunk_result) {
  SamplingScratch& scratch = sampling_scratch_[static_cast<size_t>(thread)];
  State& state = states_.at(plan.chunks[static_cast<size_t>(row.chunk)].sequence);
  const Request& request = *state.request;
  if (row.scored) {
    if (row_is_broken(logits)) return SampleOutcome::kBrokenLogits;
    const auto next = static_cast<size_t>(row.position) + 1;
    if (request.sampling.prompt_logprobs && next < request.prompt_token_ids.size()) {
      prompt_logprobs =
          position_logprobs(logits, request.prompt_token_ids[next], *request.sampling.prompt_logprobs, scratch);
    }
  }
  if (!row.sampled) return SampleOutcome::kToken;
  // An earlier slice may have found a broken row: that stays.
  if (chunk_result.sampled.outcome == SampleOutcome::kToken) {
    chunk_result.sampled = sample(logits, state.sampling, row.position + 1, scratch);
  }
  return chunk_result.sampled.outcome;
}

}  // namespace octet
