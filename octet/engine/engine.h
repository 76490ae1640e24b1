// Engine: requests in, tokens out. Owns the scheduler, one runner per rank, and the engine thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "octet/checkpoint/config.h"
#include "octet/device/device.h"
#include "octet/engine/kv_choice.h"
#include "octet/engine/request.h"
#include "octet/engine/step_profile.h"
#include "octet/kernels/backends.h"
#include "octet/quant/quant_config.h"

namespace octet {

struct EngineOptions {
  std::string model_folder;  // resolved
  std::string device = "auto";
  std::string dtype = "auto";  // auto, float32/float, bfloat16, float16/half
  QuantOptions quant;
  std::string kv_cache_dtype = "auto";
  std::vector<std::string> kv_cache_dtype_skip_layers;  // see KvCacheOptions
  bool calculate_kv_scales = false;
  std::optional<int64_t> max_model_len;  // nothing: the model's
  int32_t max_num_seqs = 256;
  std::optional<int32_t> max_num_batched_tokens;  // nothing: by workload and device, see step_tokens()
  // Offline: requests come all at once and nobody waits for single tokens, so that steps may be long.
  enum class Workload : uint8_t { kServing, kOffline } workload = Workload::kServing;
  int32_t block_size = 16;
  std::optional<int64_t> kv_cache_memory_bytes;  // nothing: a share of the free memory
  double gpu_memory_utilization = 0.9;           // of a GPU's memory, for everything together
  bool enable_prefix_caching = true;
  bool enable_chunked_prefill = true;
  enum class SchedulingPolicy : uint8_t { kFcfs, kPriority } scheduling_policy = SchedulingPolicy::kFcfs;
  bool async_scheduling = true;     // plan step n + 1 while step n runs
  bool deterministic = false;       // on a GPU: a request's bits depend on itself alone; slower
  bool enforce_eager = false;       // on a GPU: no step is recorded
  int32_t max_queued_requests = 0;  // 0: 4 * max_num_seqs
  int32_t tensor_parallel_size = 1;
  bool enable_expert_parallel = false;  // of a mixture: ranks have whole experts, not a share of each
  int32_t num_threads = 0;              // 0: all processors
  uint64_t seed = 0;
  bool dummy_weights = false;  // load_format "dummy"
  // Called on the engine's thread after the on_event calls of each step: for callers who hand events over together.
  std::function<void()> on_delivered;
  // Called on the engine's thread after each step with the number of tokens that it computed.
  std::function<void(int64_t num_tokens)> on_step;
  std::function<void(int64_t done_bytes, int64_t total_bytes)> on_load_progress;
};

// What start-up found and decided, with every byte accounted for.
struct EngineReport {
  std::string architecture, dtype, quantization, kv_cache_dtype, device;
  std::string kv_scales;         // "46 of 48 KV scales loaded, the others 1"; empty: there are none
  double kv_tokens_to_bf16 = 1;  // how many times as many tokens the KV cache holds as one in BF16
  int64_t num_parameters = 0;
  int64_t weight_bytes = 0, scale_bytes = 0, kv_bytes_per_token = 0, kv_cache_bytes = 0, activation_bytes = 0;
  int64_t workspace_bytes = 0;  // what a GPU's kernels share
  int64_t num_kv_blocks = 0, kv_cache_tokens = 0;
  int64_t max_num_seqs = 0, max_step_tokens = 0;
  int64_t num_graphs = 0, largest_graph = 0;  // recorded decode steps, and the largest batch among them
  int64_t max_model_len = 0;
  double load_seconds = 0;   // mapping, reading, quantising
  double start_seconds = 0;  // everything until ready
};

// "auto" (the model's; on a GPU bf16), "float32"/"float", "bfloat16", "float16"/"half". Throws Error{kUsage}, and
// Error{kUnsupported} for what the device does not compute in.
DType choose_dtype(std::string_view text, DType model_dtype, Device device);

// Tokens of a step at most: max_num_batched_tokens, or 2,048, on a GPU offline 8,192.
int32_t step_tokens(const EngineOptions& options, Device device);

enum class SubmitResult : uint8_t { kAccepted, kQueueFull, kStopped };

struct EngineMetrics {
  int64_t num_running = 0, num_waiting = 0, num_preemptions = 0, num_steps = 0;
  int64_t prompt_tokens = 0, generated_tokens = 0, cached_prompt_tokens = 0;
  double kv_usage = 0;  // share of blocks in use
  // Microseconds on the steady clock: when a step ended last, or the engine last had nothing to do.
  int64_t last_progress_us = 0;
};

KvCacheOptions kv_cache_options(const EngineOptions& options);
// Which kernels an engine with these options runs.
KernelSelection kernel_selection(const EngineOptions& options);

class Engine {
 public:
  // Loads the model and starts the engine thread. Throws Error.
  explicit Engine(const EngineOptions& options);
  ~Engine();  // ends every request with kAbort

  // Validates (Error{kInvalid}: prompt empty or longer than max_model_len, ids out of the vocabulary, sampling fields),
  // then queues. Thread-safe.
  SubmitResult submit(Request request);
  // Ends a request with kAbort; unknown ids are ignored. Thread-safe.
  void abort(const std::string& request_id);
  // Ends one of the request's n sequences with kAbort; the request ends with its last one. Unknown ids and sequences
  // that have ended are ignored. Thread-safe.
  void abort_sequence(const std::string& request_id, int32_t index);
  // abort() if the request still waits for its first step. Thread-safe.
  void abort_waiting(const std::string& request_id);
  // Forgets all cached prefixes of idle blocks.
  void reset_prefix_cache();

  // Where the time of a step goes; waits until no request is left. Throws Error{kUnsupported} where steps are not
  // recorded, Error{kUsage} where there is no such step.
  StepProfile profile_step(const ProfiledStep& step);

  const EngineReport& report() const;
  const ModelConfig& model_config() const;
  // Never waits for a step, nor for the scheduler.
  EngineMetrics metrics() const;
  // Why the engine stopped, when a rank failed; submit answers kStopped from then on.
  std::optional<std::string> fault() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace octet
