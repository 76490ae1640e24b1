#include "octet/engine/runner.h"

#include <algorithm>
#include <numeric>

#include "octet/base/error.h"

namespace octet {
namespace {

constexpr int64_t kInt32 = 4;  // bytes, and those of an f32

// Rows whose logits are computed at once: their memory is this many times vocab_size floats, however many a long prompt
// wants. A GPU computes those of a whole decode step, as far as that is bounded.
int64_t max_logit_rows(Device device, const StepLimits& limits) {
  constexpr int64_t kLeast = HostLogits::kMaxRows, kMost = 512;
  return device.kind == DeviceKind::kCpu ? kLeast : std::clamp(limits.max_sequences, kLeast, kMost);
}

BatchLimits batch_limits(const StepLimits& limits, int64_t block_size) {
  return {.max_tokens = std::max(limits.max_tokens, limits.max_sequences),
          .max_sequences = limits.max_sequences,
          .max_blocks = (limits.max_model_len + block_size - 1) / block_size,
          .block_size = block_size};
}

Buffer make_workspace(Device device) {
  return device.kind == DeviceKind::kCpu ? Buffer() : Buffer(device, kGpuWorkspaceBytes, "kernel workspace");
}

Launch make_launch(Stream stream, const Buffer& workspace, ThreadPool& threads, ThreadScratch& scratch,
                   ReadAhead& read_ahead) {
  Launch launch = describing_launch(stream.device, threads);
  launch.stream = stream;
  launch.scratch = &scratch;
  launch.read_ahead = &read_ahead;
  launch.workspace = make_workspace(workspace, stream);
  return launch;
}

}  // namespace

Runner::Runner(const ModelSource& source, Comm& comm, int num_threads)
    : comm_(comm),
      read_ahead_(num_threads),
      threads_(num_threads, &read_ahead_),
      thread_scratch_(num_threads),
      stream_(source.device),
      workspace_(make_workspace(source.device)),
      backend_(kernel_table(source.device, source.kernels),
               make_launch(stream_.get(), workspace_, threads_, thread_scratch_, read_ahead_),
               activation_dtype(source.device)),
      parameters_(source.device, stream_.get()),
      hidden_size_(source.config.hidden_size),
      sampling_scratch_(static_cast<size_t>(num_threads)) {
  make_current(source.device);
  WeightSource weights;
  weights.files = source.files;
  weights.quant = &source.quant;
  weights.threads = &threads_;
  weights.plain_dtype = source.plain_dtype;
  weights.rank = comm_.rank();
  weights.world_size = comm_.world_size();
  weights.expert_split = source.expert_split;
  weights.shares_token_scales = source.device.kind == DeviceKind::kCpu;
  weights.on_progress = source.on_progress;
  weights.allocate = [this](DType dtype, Shape shape, std::string_view name) {
    return parameters_.allocate(dtype, shape, name);
  };
  weights.place = [this](Tensor written) { return parameters_.place(written); };
  // Where models are large, making every element would take minutes.
  if (source.device.kind == DeviceKind::kCuda) weights.dummies = WeightSource::Dummies::kTiled;
  weights.all_reduce_max = [this](std::span<float> values) {
    const Shape shape{static_cast<int64_t>(values.size())};
    comm_.all_reduce_max(Tensor(std::as_writable_bytes(values).data(), DType::kF32, shape));
  };
  weights.runs_fast = [this](const QuantFormat& weight, const QuantFormat& activation, int64_t n, int64_t k) {
    return has_fast_linear(backend_, weight, activation, n, k);
  };
  model_ = find_arch(source.config).load(source.config, Weights(weights), backend_);
  if (comm_.rank() == 0) warn_of_dequantised(weights);
  parameters_.finish();
  weight_bytes_ = weights.weight_bytes;
  scale_bytes_ = weights.scale_bytes;
}

int64_t Runner::activation_bytes(Device device, const Model& model, int64_t hidden_size, const StepLimits& limits,
                                 int64_t block_size) {
  constexpr int64_t kAlignment = 64, kNumTensors = 16;
  const int64_t rows = max_logit_rows(device, limits);
  const int64_t gathered = rows * (1 + hidden_size);  // choices, and f32 rows of hidden states
  return BatchStaging::num_bytes(batch_limits(limits, block_size)) + gathered * kInt32 + kNumTensors * kAlignment +
         model.activation_bytes(limits.max_tokens, rows);
}

void Runner::reserve(const StepLimits& limits, const KvCacheChoice& choice, int64_t block_size, int64_t num_blocks) {
  const Device device = backend_.device();
  max_logit_rows_ = max_logit_rows(device, limits);
  arena_.emplace(device, activation_bytes(limits, block_size));
  kv_.emplace(device, choice.layout(*model_, block_size), num_blocks);
  choice.set_scales(*kv_);
  if (choice.calculates()) scales_to_calculate_ = choice;
  staging_.emplace(device, batch_limits(limits, block_size));
  host_hidden_.emplace(device, hidden_size_);
  host_logits_.emplace(device, model_->vocab_size(), max_logit_rows_);
  if (!limits.record_steps || !supports_graphs(device)) return;
  record_graphs(std::min({limits.max_sequences, limits.max_tokens, max_logit_rows_}));
}

StepRows Runner::prepare(const StepPlan& plan) {
  take_notes(plan);
  StepRows rows{.rows = logit_rows(plan), .draws = {}};
  rows.draws = choose_draws(plan, rows.rows);
  return rows;
}

void Runner::begin(const StepPlan& plan, const StepRows& rows) {
  UnderWay step{.chunks = plan.chunks, .ends = plan.ends, .rows = rows.rows};
  const Stream stream = backend_.launch().stream;
  if (const DecodeGraphs::Recorded* recorded = graph_for(plan, step.rows)) {
    const int64_t num_padding = recorded->batch_size - static_cast<int64_t>(plan.chunks.size());
    PendingTokens pending;
    if (!under_way_.empty()) {
      auto found = pending_tokens(plan, under_way_.front());
      OCTET_CHECK(found.has_value());
      pending = std::move(*found);
    }
    staging_->stage(plan, {}, rows.draws, num_padding, backend_, pending);
    recorded->graph.replay(stream);
    step.outputs = recorded->outputs;
  } else {
    OCTET_CHECK(under_way_.empty());
    begin_eagerly(plan, rows, step);
  }
  if (step.outputs.choices) host_logits_->queue_choices(step.outputs.choices, backend_);
  under_way_.push_back(std::move(step));
  prepare_grammars(under_way_.back());
}

// While the device computes. On the CPU the step has run already.
void Runner::prepare_grammars(const UnderWay& step) {
  if (comm_.rank() != 0) return;
  for (const LogitRow& row : step.rows) {
    if (!row.sampled || row.drawn) continue;
    states_.at(step.chunks[static_cast<size_t>(row.chunk)].sequence).sampling.prepare(model_->vocab_size());
  }
}

void Runner::begin_eagerly(const StepPlan& plan, const StepRows& rows, UnderWay& step) {
  std::vector<int32_t> indices;
  for (const LogitRow& row : rows.rows) indices.push_back(row.row);
  const StagedBatch staged = staging_->stage(plan, indices, rows.draws, 0, backend_);
  step.logit_rows = staged.logit_rows;
  step.draws = staged.draws;
  if (scales_to_calculate_) calculate_kv_scales(staged.batch);
  step.hidden = model_->forward(step.step.emplace(make_step(backend_, staged.batch)));
  step.outputs = slice_outputs(step, 0);
}

StepResult Runner::finish() {
  OCTET_CHECK(!under_way_.empty());
  UnderWay& step = under_way_.front();
  const std::span<const LogitRow> rows = step.rows;
  StepResult result;
  result.chunks.resize(step.chunks.size());
  if (comm_.rank() == 0 && step.hidden) {
    host_hidden_->show(step.chunks, step.hidden, backend_.launch().stream,
                       [&](SequenceId id) -> const Request& { return *states_.at(id).request; });
  }
  for (size_t begin = 0; begin < rows.size(); begin += static_cast<size_t>(max_logit_rows_)) {
    if (begin > 0) {
      step.outputs = slice_outputs(step, static_cast<int64_t>(begin));
      if (step.outputs.choices) host_logits_->queue_choices(step.outputs.choices, backend_);
    }
    use_outputs(step, rows.subspan(begin, std::min(static_cast<size_t>(max_logit_rows_), rows.size() - begin)), result);
  }
  for (SequenceId id : step.ends) states_.erase(id);
  under_way_.pop_front();
  return result;
}

bool Runner::chosen_on_device(const UnderWay& step) const {
  return step.outputs.choices && std::all_of(step.rows.begin(), step.rows.end(), [&](const LogitRow& row) {
           const SequenceId sequence = step.chunks[static_cast<size_t>(row.chunk)].sequence;
           return row.drawn && states_.at(sequence).sampling.needs_only_a_draw();
         });
}

bool Runner::can_follow(const StepPlan& plan) const {
  if (under_way_.size() != 1 || !plan.starts.empty() || !chosen_on_device(under_way_.front())) return false;
  const UnderWay& before = under_way_.front();
  if (static_cast<int64_t>(before.rows.size()) > max_logit_rows_) return false;
  if (plan.num_tokens != static_cast<int64_t>(plan.chunks.size()) || graphs_.find(plan.num_tokens) == nullptr)
    return false;
  return pending_tokens(plan, before).has_value();
}

// Where the tokens are that `plan` waits for. Nothing when one is not there, or when the plan does more than decode
// sequences that the device chose a token of.
std::optional<PendingTokens> Runner::pending_tokens(const StepPlan& plan, const UnderWay& before) {
  std::unordered_map<SequenceId, int32_t> row_of;
  for (size_t r = 0; r < before.rows.size(); ++r)
    row_of.emplace(before.chunks[static_cast<size_t>(before.rows[r].chunk)].sequence, static_cast<int32_t>(r));
  PendingTokens pending{.choices = before.outputs.choices, .places = {}};
  for (size_t i = 0; i < plan.chunks.size(); ++i) {
    const StepChunk& chunk = plan.chunks[i];
    if (chunk.num_tokens != 1 || chunk.sample != StepChunk::Sample::kYes || chunk.score_begin != kNothingScored)
      return {};
    if (plan.tokens_of(chunk)[0] != kPendingToken) continue;
    const auto found = row_of.find(chunk.sequence);
    if (found == row_of.end()) return {};
    pending.places.push_back({.row = static_cast<int32_t>(i), .choice = found->second});
  }
  return pending;
}

void Runner::take_notes(const StepPlan& plan) {
  for (const SequenceStart& start : plan.starts) {
    const Request& request = *start.request;
    const std::span<const int32_t> eos = request.eos_token_ids;
    states_.emplace(
        start.sequence,
        State{start.request, SamplingState({.params = request.sampling,
                                            .eos_token_ids = request.sampling.ignore_eos ? eos.first(0) : eos,
                                            .grammar = request.grammar.get(),
                                            .prompt_token_ids = request.prompt_token_ids,
                                            .seed = start.seed,
                                            .index = start.index})});
  }
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
    const Request& request = *states_.at(chunk.sequence).request;
    if (chunk.score_begin != kNothingScored && (request.sampling.prompt_logprobs || request.on_logits)) {
      const auto length = static_cast<int64_t>(request.prompt_token_ids.size());
      for (int64_t p = chunk.score_begin; p < std::min(chunk.end(), length); ++p) add(p, true, p == last);
    }
    if (last >= 0 && (rows.empty() || rows.back().position != last || rows.back().chunk != static_cast<int32_t>(c)))
      add(last, false, true);
    first_row += chunk.num_tokens;
  }
  return rows;
}

// How each row's token is drawn; of rows of which more is wanted than that any token is.
std::vector<RowDraw> Runner::choose_draws(const StepPlan& plan, std::vector<LogitRow>& rows) const {
  std::vector<RowDraw> draws(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    LogitRow& row = rows[i];
    const SamplingState& state = states_.at(plan.chunks[static_cast<size_t>(row.chunk)].sequence).sampling;
    row.drawn = row.sampled && !row.scored && state.needs_only_a_draw();
    if (row.drawn) draws[i] = state.row_draw(row.position + 1);
  }
  return draws;
}

Step Runner::make_step(const Backend& backend, const Batch& batch) {
  arena_->reset();
  return {.backend = backend, .arena = *arena_, .kv = *kv_, .comm = comm_, .batch = batch, .observe = {}};
}

// Allocates or frees while kernels of no rank run: the driver may wait for them, and they for a rank that waits for the
// driver.
void Runner::change_memory(const std::function<void()>& change) {
  synchronize(backend_.launch().stream);
  comm_.barrier();
  change();
  comm_.barrier();
}

// The first step runs twice, the first time into a cache of real numbers, which shows how large they are.
void Runner::calculate_kv_scales(const Batch& batch) {
  KvCacheLayout layout = kv_->layout();
  layout.dtype = DType::kF32;
  layout.layer_dtypes.clear();
  std::optional<KvCache> real;
  change_memory([&] { real.emplace(backend_.device(), layout, kv_->num_blocks()); });
  arena_->reset();
  Step step{.backend = backend_, .arena = *arena_, .kv = *real, .comm = comm_, .batch = batch, .observe = {}};
  model_->forward(step);
  std::vector<float> magnitudes = kv_magnitudes(*real, batch.slot_mapping);
  const Shape shape{static_cast<int64_t>(magnitudes.size())};
  comm_.all_reduce_max(Tensor(std::as_writable_bytes(std::span(magnitudes)).data(), DType::kF32, shape));
  change_memory([&] { real.reset(); });
  scales_to_calculate_->set_calculated(*kv_, magnitudes);
  scales_to_calculate_.reset();
}

RowOutputs Runner::row_outputs(Step& step, ConstTensor hidden_rows, ConstTensor draws) {
  RowOutputs outputs{.logits = model_->logits(step, hidden_rows), .choices = {}};
  if (backend_.device().kind == DeviceKind::kCpu) return outputs;
  outputs.choices = arena_->make(DType::kI32, {hidden_rows.dim(0)});
  step.backend(SampleOp{.index = outputs.choices, .x = outputs.logits, .draws = draws});
  return outputs;
}

void Runner::record_graphs(int64_t most_sequences) {
  const Stream stream = backend_.launch().stream;
  const auto prepare = [&](int64_t batch_size) {
    const StagedBatch staged = staging_->stage({}, {}, {}, batch_size, backend_);  // nothing but padding
    return [this, staged] {
      Step step = make_step(backend_, staged.batch);
      return row_outputs(step, model_->forward(step), staged.draws);
    };
  };
  graphs_.record(stream, most_sequences, prepare, [this] {
    comm_.check_kernels();
    comm_.barrier();
  });
}

// Sequence s has the blocks from s * blocks of a sequence on.
StepPlan Runner::profiled_plan(const ProfiledStep& profiled) const {
  const auto [batch_size, num_tokens, num_new] = profiled;
  const int64_t num_blocks = (num_tokens + kv_->layout().block_size - 1) / kv_->layout().block_size;
  if (batch_size > graphs_.largest() || batch_size * num_new > staging_->limits().max_tokens ||
      batch_size * num_blocks > kv_->num_blocks()) {
    fail(ErrorCode::kUsage, "no step computes {} tokens of each of {} sequences of {}", num_new, batch_size,
         num_tokens);
  }
  StepPlan plan{.num_tokens = batch_size * num_new};
  for (int64_t s = 0; s < batch_size; ++s) {
    plan.chunks.push_back({.begin = num_tokens - num_new,
                           .num_tokens = static_cast<int32_t>(num_new),
                           .first_token = static_cast<int32_t>(s * num_new),
                           .first_block = static_cast<int32_t>(s * num_blocks),
                           .num_blocks = static_cast<int32_t>(num_blocks)});
    for (int64_t b = 0; b < num_blocks; ++b) plan.block_ids.push_back(static_cast<int32_t>(s * num_blocks + b));
  }
  for (int64_t i = 0; i < plan.num_tokens; ++i)
    plan.token_ids.push_back(static_cast<int32_t>(i % model_->vocab_size()));
  return plan;
}

StepProfile Runner::profile(const ProfiledStep& profiled) {
  OCTET_CHECK(under_way_.empty());
  const int64_t batch_size = profiled.batch_size;
  const bool decodes = profiled.num_new == 1;  // every row's logits are wanted
  std::vector<int32_t> last_rows;
  for (int64_t s = 1; s <= batch_size && !decodes; ++s)
    last_rows.push_back(static_cast<int32_t>(s * profiled.num_new - 1));
  const int64_t num_padding = decodes ? graphs_.find(batch_size)->batch_size - batch_size : 0;
  const Stream stream = backend_.launch().stream;
  const std::vector<RowDraw> draws(static_cast<size_t>(batch_size));
  const StagedBatch staged = staging_->stage(profiled_plan(profiled), last_rows, draws, num_padding, backend_);
  StepProfile profile = profile_step(stream, profiled, [&](LaunchObserver& observer) {
    Launch launch = backend_.launch();
    launch.observer = &observer;
    const Backend observed(backend_.table(), launch, backend_.activation_dtype());
    Step step = make_step(observed, staged.batch);
    Tensor hidden = model_->forward(step);
    if (!decodes) {
      const Tensor rows = arena_->make(hidden.dtype, {batch_size, hidden.dim(1)});
      observed(GatherRowsOp{.out = rows, .x = hidden, .rows = staged.logit_rows});
      hidden = rows;
    }
    row_outputs(step, hidden, staged.draws);
  });
  profile.peak_bytes_per_second = gpu_properties(backend_.device()).peak_bytes_per_second;
  return profile;
}

// Of a plan in which every sequence has one token and wants one row.
const DecodeGraphs::Recorded* Runner::graph_for(const StepPlan& plan, std::span<const LogitRow> rows) const {
  const size_t count = plan.chunks.size();
  if (plan.num_tokens != static_cast<int64_t>(count) || rows.size() != count) return nullptr;
  for (size_t i = 0; i < count; ++i) {
    // Recorded steps keep no hidden states; a chunk that scores may want them. Every rank decides by the plan alone.
    if (plan.chunks[i].score_begin != kNothingScored) return nullptr;
    if (rows[i].row != static_cast<int32_t>(i)) return nullptr;
  }
  return graphs_.find(static_cast<int64_t>(count));
}

// Of the rows from `begin` on, as many as are computed at once; they take the place of the slice before.
RowOutputs Runner::slice_outputs(UnderWay& step, int64_t begin) {
  const int64_t count = std::min(max_logit_rows_, step.logit_rows.dim(0) - begin);
  if (count <= 0) return {};
  const Arena::Scope scope(*arena_);
  const Tensor hidden_rows = arena_->make(step.hidden.dtype, {count, step.hidden.dim(1)});
  backend_(GatherRowsOp{.out = hidden_rows, .x = step.hidden, .rows = step.logit_rows.rows(begin, count)});
  return row_outputs(*step.step, hidden_rows, step.draws.rows(begin, count));
}

// `rows`: those of step.outputs, which may have more: padding.
void Runner::use_outputs(const UnderWay& step, std::span<const LogitRow> rows, StepResult& result) {
  std::vector<int32_t> others;  // rows that the host wants to see
  std::span<const int32_t> choices;
  if (step.outputs.choices) choices = host_logits_->take_choices();
  comm_.check_kernels();
  if (comm_.rank() != 0) return;
  if (step.outputs.choices) {
    take_choices(step, rows, choices, others, result);
  } else {
    others.resize(rows.size());
    std::iota(others.begin(), others.end(), 0);
  }
  for (size_t begin = 0; begin < others.size(); begin += HostLogits::kMaxRows) {
    const size_t count = std::min<size_t>(HostLogits::kMaxRows, others.size() - begin);
    const std::span<const int32_t> indices = std::span(others).subspan(begin, count);
    use_rows(step, rows, indices, host_logits_->rows(step.outputs.logits, indices, backend_.launch().stream), result);
  }
}

// Gives every row that wants nothing but a token the one that the device has drawn; the others are listed.
void Runner::take_choices(const UnderWay& step, std::span<const LogitRow> rows, std::span<const int32_t> choices,
                          std::vector<int32_t>& others, StepResult& result) {
  for (size_t i = 0; i < rows.size(); ++i) {
    const LogitRow& row = rows[i];
    SamplingState& state = states_.at(step.chunks[static_cast<size_t>(row.chunk)].sequence).sampling;
    if (!row.drawn || !state.needs_only_a_draw()) {
      others.push_back(static_cast<int32_t>(i));
      continue;
    }
    Sampled& sampled = result.chunks[static_cast<size_t>(row.chunk)].sampled;
    if (sampled.outcome != SampleOutcome::kToken) continue;  // an earlier row of the chunk was broken
    if (choices[i] == kBrokenRow) {
      sampled.outcome = SampleOutcome::kBrokenLogits;
      continue;
    }
    sampled.token_id = choices[i];
    state.accept(choices[i]);
  }
}

// Rows `indices` of `rows`, whose logits are given.
void Runner::use_rows(const UnderWay& step, std::span<const LogitRow> rows, std::span<const int32_t> indices,
                      std::span<const std::span<float>> logits, StepResult& result) {
  const auto row_at = [&](size_t i) -> const LogitRow& { return rows[static_cast<size_t>(indices[i])]; };
  // Callbacks in order and before sampling, which overwrites rows.
  for (size_t i = 0; i < indices.size(); ++i) {
    const LogitRow& row = row_at(i);
    const Request& request = *states_.at(step.chunks[static_cast<size_t>(row.chunk)].sequence).request;
    if (row.scored && request.on_logits) request.on_logits(row.position, logits[i]);
  }
  // Room for results first: rows of one chunk may be used by several threads.
  std::vector<PositionLogprobs> prompt_logprobs(indices.size());
  std::vector<SampleOutcome> outcomes(indices.size(), SampleOutcome::kToken);
  threads_.parallel_for(static_cast<int64_t>(indices.size()), 1, [&](int thread, int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      ChunkResult& chunk_result = result.chunks[static_cast<size_t>(row_at(i).chunk)];
      outcomes[i] = use_row(step, row_at(i), logits[i], thread, prompt_logprobs[i], chunk_result);
    }
  });
  for (size_t i = 0; i < indices.size(); ++i) {
    ChunkResult& chunk_result = result.chunks[static_cast<size_t>(row_at(i).chunk)];
    if (!prompt_logprobs[i].empty()) chunk_result.prompt_logprobs.push_back(std::move(prompt_logprobs[i]));
    if (outcomes[i] != SampleOutcome::kToken) chunk_result.sampled.outcome = outcomes[i];
  }
}

// Runs on a thread of the pool. Only the row that samples touches the sequence's state and chunk_result.sampled.
SampleOutcome Runner::use_row(const UnderWay& step, const LogitRow& row, std::span<float> logits, int thread,
                              PositionLogprobs& prompt_logprobs, ChunkResult& chunk_result) {
  SamplingScratch& scratch = sampling_scratch_[static_cast<size_t>(thread)];
  State& state = states_.at(step.chunks[static_cast<size_t>(row.chunk)].sequence);
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
