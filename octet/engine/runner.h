// Runner: one rank. Owns its weights, its part of the KV cache and its activations; turns a StepPlan into a batch, runs
// the model, and (rank 0) samples. Used by one thread, the rank's own.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "octet/base/thread_pool.h"
#include "octet/checkpoint/config.h"
#include "octet/checkpoint/safetensors.h"
#include "octet/device/arena.h"
#include "octet/device/comm.h"
#include "octet/device/stream.h"
#include "octet/engine/batch_staging.h"
#include "octet/engine/decode_graphs.h"
#include "octet/engine/host_hidden.h"
#include "octet/engine/host_logits.h"
#include "octet/engine/kv_choice.h"
#include "octet/engine/parameter_store.h"
#include "octet/engine/step_plan.h"
#include "octet/engine/step_profile.h"
#include "octet/kernels/backends.h"
#include "octet/kv/kv_cache.h"
#include "octet/models/model.h"
#include "octet/quant/quant_config.h"
#include "octet/sampling/sampler.h"

namespace octet {

// What to load; the same for every rank. All of it outlives the load only.
struct ModelSource {
  const ModelConfig& config;
  const SafetensorsFolder* files = nullptr;  // nullptr: dummy weights
  const QuantConfig& quant;
  Device device;
  DType plain_dtype = DType::kBF16;
  KernelSelection kernels = KernelSelection::kFastest;
  WeightSource::ExpertSplit expert_split = WeightSource::ExpertSplit::kChannels;
  std::function<void(int64_t bytes)> on_progress;
};

struct StepLimits {
  int64_t max_tokens = 0;  // of a step
  int64_t max_sequences = 0;
  int64_t max_model_len = 0;
  bool record_steps = true;  // decode steps, where the device can
};

// What rank 0 decides for all ranks of a step's rows.
struct StepRows {
  struct Row {  // of hidden states, whose logits are wanted
    int32_t row = 0;
    int32_t chunk = 0;
    int64_t position = 0;
    bool scored = false;
    bool sampled = false;
    bool drawn = false;  // by the device, as its sequence asks for
  };
  std::vector<Row> rows;
  std::vector<RowDraw> draws;  // one a row
};

class Runner {
 public:
  // Loads the rank's weights. Collective: all ranks do it at the same time.
  Runner(const ModelSource& source, Comm& comm, int num_threads);

  int rank() const { return comm_.rank(); }
  const Model& model() const { return *model_; }
  int64_t weight_bytes() const { return weight_bytes_; }  // scales included
  int64_t scale_bytes() const { return scale_bytes_; }
  int64_t num_parameters() const { return parameters_.num_elements(); }  // of this rank, scales included
  // Device memory that steps of such a model within the limits need at most, besides weights, KV cache and workspace.
  static int64_t activation_bytes(Device device, const Model& model, int64_t hidden_size, const StepLimits& limits,
                                  int64_t block_size);
  int64_t activation_bytes(const StepLimits& limits, int64_t block_size) const {
    return activation_bytes(backend_.device(), *model_, hidden_size_, limits, block_size);
  }
  int64_t workspace_bytes() const { return workspace_.num_bytes(); }
  // Makes KV cache, arena and, on a GPU, graphs; before the first run.
  void reserve(const StepLimits& limits, const KvCacheChoice& choice, int64_t block_size, int64_t num_blocks);

  // The largest batch of the recorded decode steps; 0 where steps are not recorded.
  int64_t largest_graph() const { return graphs_.largest(); }
  int64_t num_graphs() const { return graphs_.count(); }

  // Between steps; overwrites what the cache holds.
  StepProfile profile(const ProfiledStep& profiled);

  // Of rank 0 alone, which knows the sequences: what begin() is given on all ranks.
  StepRows prepare(const StepPlan& plan);
  // Collective: starts a step and ends it. On a GPU its work is queued in between, and the host is free for other
  // things. The result of rank 0 counts, the others' are empty.
  void begin(const StepPlan& plan, const StepRows& rows);
  StepResult finish();
  // Of rank 0. Whether `plan` may begin before the step under way is finished: one recorded step after another, where
  // every pending token is one that the device has chosen.
  bool can_follow(const StepPlan& plan) const;

 private:
  struct State {  // of one sequence
    std::shared_ptr<const Request> request;
    SamplingState sampling;
  };
  using LogitRow = StepRows::Row;

  struct UnderWay {  // the step between begin and finish
    std::vector<StepChunk> chunks;
    std::vector<SequenceId> ends;
    std::vector<LogitRow> rows;
    // Of a step that is not a recorded one: what further slices of rows are computed from.
    std::optional<Step> step;
    Tensor hidden;
    ConstTensor logit_rows, draws;
    RowOutputs outputs;  // of the first slice
  };

  void take_notes(const StepPlan& plan);
  std::vector<LogitRow> logit_rows(const StepPlan& plan) const;
  std::vector<RowDraw> choose_draws(const StepPlan& plan, std::vector<LogitRow>& rows) const;
  void change_memory(const std::function<void()>& change);
  Step make_step(const Backend& backend, const Batch& batch);
  void calculate_kv_scales(const Batch& batch);
  RowOutputs row_outputs(Step& step, ConstTensor hidden_rows, ConstTensor draws);
  void record_graphs(int64_t most_sequences);
  StepPlan profiled_plan(const ProfiledStep& profiled) const;
  const DecodeGraphs::Recorded* graph_for(const StepPlan& plan, std::span<const LogitRow> rows) const;
  bool chosen_on_device(const UnderWay& step) const;
  static std::optional<PendingTokens> pending_tokens(const StepPlan& plan, const UnderWay& before);
  void prepare_grammars(const UnderWay& step);
  void begin_eagerly(const StepPlan& plan, const StepRows& rows, UnderWay& step);
  RowOutputs slice_outputs(UnderWay& step, int64_t begin);
  void use_outputs(const UnderWay& step, std::span<const LogitRow> rows, StepResult& result);
  void take_choices(const UnderWay& step, std::span<const LogitRow> rows, std::span<const int32_t> choices,
                    std::vector<int32_t>& others, StepResult& result);
  void use_rows(const UnderWay& step, std::span<const LogitRow> rows, std::span<const int32_t> indices,
                std::span<const std::span<float>> logits, StepResult& result);
  SampleOutcome use_row(const UnderWay& step, const LogitRow& row, std::span<float> logits, int thread,
                        PositionLogprobs& prompt_logprobs, ChunkResult& chunk_result);

  Comm& comm_;
  ReadAhead read_ahead_;
  ThreadPool threads_;
  ThreadScratch thread_scratch_;
  StreamOwner stream_;
  Buffer workspace_;
  Backend backend_;
  ParameterStore parameters_;
  std::unique_ptr<Model> model_;
  int64_t hidden_size_ = 0;
  int64_t weight_bytes_ = 0;
  int64_t scale_bytes_ = 0;
  int64_t max_logit_rows_ = 0;  // computed at once
  std::optional<KvCache> kv_;
  std::optional<KvCacheChoice> scales_to_calculate_;  // with the first step
  std::optional<Arena> arena_;
  std::optional<BatchStaging> staging_;
  std::optional<HostHidden> host_hidden_;
  std::optional<HostLogits> host_logits_;
  DecodeGraphs graphs_;
  std::deque<UnderWay> under_way_;                 // at most two; the later one has begun behind the other
  std::unordered_map<SequenceId, State> states_;   // of rank 0
  std::vector<SamplingScratch> sampling_scratch_;  // one per thread
};

}  // namespace octet
