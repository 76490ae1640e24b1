// Runner: one rank. Owns its weights, its part of the KV cache and its activations; turns a StepPlan into a batch, runs
// the model, and (rank 0) samples. Used by one thread, the rank's own.
#pragma once

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
#include "octet/engine/step_plan.h"
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
  std::function<void(int64_t bytes)> on_progress;
};

struct StepLimits {
  int64_t max_tokens = 0;  // of a step
  int64_t max_sequences = 0;
  int64_t max_model_len = 0;
};

class Runner {
 public:
  // Rows whose logits are computed and used at once: their memory is this many times vocab_size floats, however many a
  // long prompt wants.
  static constexpr int64_t kLogitRows = 64;

  // Loads the rank's weights. Collective: all ranks do it at the same time.
  Runner(const ModelSource& source, Comm& comm, int num_threads);

  const Model& model() const { return *model_; }
  int64_t weight_bytes() const { return weight_bytes_; }  // scales included
  int64_t scale_bytes() const { return scale_bytes_; }
  int64_t num_parameters() const { return num_parameters_; }  // of this rank, scales included
  // Arena bytes that steps within the limits need at most.
  int64_t activation_bytes(const StepLimits& limits, int64_t block_size) const;
  // Makes KV cache and arena; before the first run.
  void reserve(const StepLimits& limits, const KvCacheLayout& layout, int64_t num_blocks);

  // Collective. The result of rank 0 counts, the others' are empty.
  StepResult run(const StepPlan& plan);

 private:
  struct State {  // of one sequence
    std::shared_ptr<const Request> request;
    SamplingState sampling;
  };
  struct LogitRow {  // one row of hidden states whose logits are wanted
    int32_t row = 0;
    int32_t chunk = 0;
    int64_t position = 0;
    bool scored = false;
    bool sampled = false;
  };

  void take_notes(const StepPlan& plan);
  Batch make_batch(const StepPlan& plan);
  std::vector<LogitRow> logit_rows(const StepPlan& plan) const;
  void run_slice(Step& step, ConstTensor hidden, const StepPlan& plan, std::span<const LogitRow> rows,
                 StepResult& result);
  SampleOutcome use_row(const StepPlan& plan, const LogitRow& row, std::span<float> logits, int thread,
                        PositionLogprobs& prompt_logprobs, ChunkResult& chunk_result);

  Comm& comm_;
  ThreadPool threads_;
  ThreadScratch thread_scratch_;
  Backend backend_;
  std::vector<Buffer> buffers_;
  std::unique_ptr<Model> model_;
  int64_t hidden_size_ = 0;
  int64_t weight_bytes_ = 0;
  int64_t scale_bytes_ = 0;
  int64_t num_parameters_ = 0;
  std::optional<KvCache> kv_;
  std::optional<Arena> arena_;
  std::unordered_map<SequenceId, State> states_;
  std::vector<SamplingScratch> sampling_scratch_;  // one per thread
};

}  // namespace octet
