#include "octet/engine/engine.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>
#include <span>
#include <string_view>

#include "octet/base/error.h"
#include "octet/base/log.h"
#include "octet/engine/engine_loop.h"
#include "octet/engine/kv_sizing.h"
#include "octet/engine/memory_plan.h"
#include "octet/engine/rank_team.h"
#include "octet/engine/recorded_model.h"

namespace octet {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

void check_range(const char* option, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high)
    fail(ErrorCode::kUsage, "{}: must be between {} and {}, was {}", option, low, high, value);
}

void check_options(const EngineOptions& options) {
  constexpr int64_t kMaxSequences = 1 << 16, kMaxTokens = 1 << 24, kMaxBlock = 1 << 12, kMaxRanks = 64,
                    kMaxThreads = 4096;
  check_range("max_num_seqs", options.max_num_seqs, 1, kMaxSequences);
  if (options.max_num_batched_tokens)
    check_range("max_num_batched_tokens", *options.max_num_batched_tokens, 1, kMaxTokens);
  check_range("block_size", options.block_size, 1, kMaxBlock);
  check_range("max_queued_requests", options.max_queued_requests, 0, kMaxTokens);
  check_range("tensor_parallel_size", options.tensor_parallel_size, 1, kMaxRanks);
  if (!(options.gpu_memory_utilization > 0.0 && options.gpu_memory_utilization <= 1.0)) {
    fail(ErrorCode::kUsage, "gpu_memory_utilization: must be above 0 and at most 1, was {}",
         options.gpu_memory_utilization);
  }
  check_range("num_threads", options.num_threads, 0, kMaxThreads);
  if (options.kv_cache_memory_bytes) {
    check_range("kv_cache_memory_bytes", *options.kv_cache_memory_bytes, 1, std::numeric_limits<int64_t>::max());
  }
}

// The longest sequence that the model's positions are made for.
int64_t model_context(const ModelConfig& config) {
  if (!config.rope_scaling.is_object()) return config.max_position_embeddings;
  const JsonObject scaling(config.rope_scaling, config.path);
  const std::string type = scaling.find_string("rope_type").value_or(scaling.find_string("type").value_or("default"));
  const double factor = scaling.find_number("factor").value_or(1.0);
  if (type == "linear" || type == "dynamic")
    return static_cast<int64_t>(static_cast<double>(config.max_position_embeddings) * factor);
  if (type != "yarn") return config.max_position_embeddings;
  const int64_t original =
      scaling.find_int("original_max_position_embeddings").value_or(config.max_position_embeddings);
  return std::max(config.max_position_embeddings, static_cast<int64_t>(static_cast<double>(original) * factor));
}

int64_t choose_max_model_len(const EngineOptions& options, const ModelConfig& config) {
  const int64_t context = model_context(config);
  if (!options.max_model_len) return context;
  check_range("max_model_len", *options.max_model_len, 1, context);
  return *options.max_model_len;
}

// Weights on disk, without scales and without an output projection that is tied to the embedding.
int64_t count_parameters(const SafetensorsFolder& files, const ModelConfig& config) {
  int64_t count = 0;
  for (const auto& [name, entry] : files.entries()) {
    const bool is_scale = name.ends_with("_scale") || name.ends_with("_scale_inv") || name.ends_with("inv_freq");
    if (is_scale || (config.tie_word_embeddings && name == "lm_head.weight")) continue;
    count += entry.shape.num_elements();
  }
  return count;
}

Device choose_device(const EngineOptions& options) {
  const Device device = parse_device(options.device);
  if (options.device == "auto" && device.kind == DeviceKind::kCpu) log_info("{}: running on the CPU", why_no_gpu());
  if (device.kind == DeviceKind::kCuda && options.tensor_parallel_size > 1) {
    gpus_of_ranks(device, options.tensor_parallel_size);  // which refuses
    log_warning("tensor_parallel_size {} on GPUs is new: compare its answers with one GPU's before you rely on them",
                options.tensor_parallel_size);
  }
  return device;
}

std::string device_description(Device first, int world_size) {
  if (first.kind == DeviceKind::kCpu) return cpu_description();
  const std::string& name = gpu_properties(first).name;
  if (world_size == 1) return fmt::format("{} ({})", name, device_name(first));
  return fmt::format("{} x {} ({} to {})", world_size, name, device_name(first),
                     device_name(RankTeam::device_of(first, world_size - 1)));
}

// What may still be allocated. Of a GPU the user grants a share, which covers what is in use already.
int64_t grantable_bytes(Device device, double gpu_memory_utilization) {
  const int64_t available = available_memory_bytes(device);
  if (device.kind == DeviceKind::kCpu) return available;
  const auto total = static_cast<double>(gpu_properties(device).total_bytes);
  return available - static_cast<int64_t>(total * (1.0 - gpu_memory_utilization));
}

}  // namespace

KvCacheOptions kv_cache_options(const EngineOptions& options) {
  return {.dtype = options.kv_cache_dtype,
          .skip_layers = options.kv_cache_dtype_skip_layers,
          .calculate_scales = options.calculate_kv_scales};
}

KernelSelection kernel_selection(const EngineOptions& options) {
  return options.deterministic ? KernelSelection::kDeterministic : KernelSelection::kFastest;
}

DType choose_dtype(std::string_view text, DType model_dtype, Device device) {
  const bool gpu = device.kind == DeviceKind::kCuda;
  if (text == "auto") return gpu ? DType::kBF16 : model_dtype;
  if (text == "bfloat16") return DType::kBF16;
  const bool f32 = text == "float32" || text == "float";
  if (!f32 && text != "float16" && text != "half") {
    fail(ErrorCode::kUsage, "dtype: \"{}\" is not one of auto, float32, float, bfloat16, float16, half", text);
  }
  if (gpu) fail(ErrorCode::kUnsupported, "dtype \"{}\": on {} octet computes in bfloat16", text, device_name(device));
  return f32 ? DType::kF32 : DType::kF16;
}

struct Engine::State {
  explicit State(const EngineOptions& options);

  using Recorded = std::vector<std::unique_ptr<RecordedModel>>;
  void check_fits(const ModelSource& source, const EngineOptions& options) const;
  MemoryNeeds memory_needs(const EngineOptions& options, const RecordingSource& recording,
                           std::span<const Recorded::value_type> recorded) const;
  static std::optional<int64_t> kv_memory_of(const EngineOptions& options, int64_t num_ranks);
  int64_t num_blocks_of(const EngineOptions& options, Device own, int first_rank, int num_ranks) const;
  void load(const EngineOptions& options);
  void reserve(const EngineOptions& options);
  StepLimits step_limits(const EngineOptions& options) const;
  SchedulerOptions scheduler_options(const EngineOptions& options) const;

  ModelConfig config;
  Device device;
  EngineReport report;
  std::optional<KvCacheChoice> kv;
  std::unique_ptr<RankTeam> ranks;
  std::unique_ptr<EngineLoop> loop;  // after ranks: ends before them
};

Engine::State::State(const EngineOptions& options) {
  const Clock::time_point start = Clock::now();
  check_options(options);
  device = choose_device(options);
  config = ModelConfig::from_folder(options.model_folder);
  report.architecture = config.architecture;
  report.max_model_len = choose_max_model_len(options, config);
  load(options);
  report.load_seconds = seconds_since(start);
  reserve(options);
  const auto overlap = options.async_scheduling ? EngineLoop::Overlap::kYes : EngineLoop::Overlap::kNo;
  loop =
      std::make_unique<EngineLoop>(scheduler_options(options), *ranks, overlap, options.on_delivered, options.on_step);
  report.start_seconds = seconds_since(start);
}

// Before anything large is allocated: the sum of all that start-up will take. GPUs have a memory each.
void Engine::State::check_fits(const ModelSource& source, const EngineOptions& options) const {
  ThreadPool threads(1);
  const Backend backend(kernel_table(device, kernel_selection(options)), describing_launch(device, threads),
                        activation_dtype(device));
  const RecordingSource recording{.config = &config,
                                  .files = source.files,
                                  .quant = &source.quant,
                                  .plain_dtype = source.plain_dtype,
                                  .backend = &backend,
                                  .world_size = options.tensor_parallel_size,
                                  .expert_split = source.expert_split};
  const Recorded all = record_ranks(recording);
  const double share = options.gpu_memory_utilization;
  const int world_size = options.tensor_parallel_size;
  if (device.kind == DeviceKind::kCpu || world_size == 1)
    return check_memory(memory_needs(options, recording, all), grantable_bytes(device, share));
  for (int rank = 0; rank < world_size; ++rank) {
    const Device own = RankTeam::device_of(device, rank);
    MemoryNeeds needs = memory_needs(options, recording, std::span(all).subspan(static_cast<size_t>(rank), 1));
    needs.of = fmt::format("memory of rank {} ({})", rank, device_name(own));
    check_memory(needs, grantable_bytes(own, share));
  }
}

// Of some ranks, which outlive the result.
MemoryNeeds Engine::State::memory_needs(const EngineOptions& options, const RecordingSource& recording,
                                        std::span<const Recorded::value_type> recorded) const {
  MemoryNeeds needs{.weights = recording.quant->description(),
                    .max_num_batched_tokens = step_limits(options).max_tokens,
                    .block_size = options.block_size,
                    .max_model_len = report.max_model_len,
                    .kv_cache_memory_bytes = kv_memory_of(options, static_cast<int64_t>(recorded.size()))};
  const int64_t max_sequences = options.max_num_seqs, block_size = options.block_size;
  needs.activation_bytes = [=, this](int64_t max_num_batched_tokens, int64_t max_model_len) {
    const StepLimits limits{
        .max_tokens = max_num_batched_tokens, .max_sequences = max_sequences, .max_model_len = max_model_len};
    int64_t bytes = device.kind == DeviceKind::kCpu ? 0 : kGpuWorkspaceBytes;
    for (const auto& rank : recorded)
      bytes += Runner::activation_bytes(device, rank->model(), config.hidden_size, limits, block_size);
    return bytes;
  };
  for (const auto& rank : recorded) {
    needs.bytes_per_block += kv->layout(rank->model(), block_size).bytes_per_block();
    needs.weight_bytes += rank->weight_bytes();
  }
  const bool quantised = config.quantization_config() != nullptr || !options.quant.quantization.empty();
  const auto num_ranks = static_cast<int64_t>(recorded.size());
  needs.fp8_weight_bytes = [=]() -> std::optional<int64_t> {
    if (quantised) return std::nullopt;
    const QuantConfig fp8(nullptr, QuantOptions{.quantization = "fp8"}, recording.plain_dtype);
    RecordingSource in_fp8 = recording;
    in_fp8.quant = &fp8;
    int64_t bytes = 0;
    for (const auto& rank : record_ranks(in_fp8)) bytes += rank->weight_bytes();
    return bytes * num_ranks / recording.world_size;
  };
  return needs;
}

// What the user grants the KV cache of so many ranks of all.
std::optional<int64_t> Engine::State::kv_memory_of(const EngineOptions& options, int64_t num_ranks) {
  if (!options.kv_cache_memory_bytes) return std::nullopt;
  return *options.kv_cache_memory_bytes / options.tensor_parallel_size * num_ranks;
}

void Engine::State::load(const EngineOptions& options) {
  const DType dtype = choose_dtype(options.dtype, config.dtype, device);
  const QuantConfig quant(config.quantization_config(), options.quant, dtype);
  std::optional<SafetensorsFolder> files;
  if (!options.dummy_weights) files.emplace(options.model_folder);
  const int64_t total = files ? files->num_bytes() : 0;
  std::atomic<int64_t> done{0};
  std::mutex progress_mutex;  // the callback is the caller's: one call at a time
  const ModelSource source{.config = config,
                           .files = files ? &*files : nullptr,
                           .quant = quant,
                           .device = device,
                           .plain_dtype = dtype,
                           .kernels = kernel_selection(options),
                           .expert_split = options.enable_expert_parallel ? WeightSource::ExpertSplit::kExperts
                                                                          : WeightSource::ExpertSplit::kChannels,
                           .on_progress = [&](int64_t bytes) {
                             done += bytes;
                             if (!options.on_load_progress) return;
                             const std::lock_guard lock(progress_mutex);
                             options.on_load_progress(std::min(done.load(), total), total);
                           }};
  kv.emplace(kv_cache_options(options),
             KvCacheChoice::Source{
                 .config = config, .files = source.files, .quant = quant, .model_dtype = dtype, .device = device});
  check_fits(source, options);
  const int num_threads = options.num_threads > 0 ? options.num_threads : ThreadPool::default_num_threads();
  ranks = std::make_unique<RankTeam>(source, options.tensor_parallel_size, num_threads);
  report.dtype = dtype_name(dtype);
  report.quantization = quant.description();
  report.device = device_description(device, options.tensor_parallel_size);
  report.kv_cache_dtype = dtype_name(kv->dtype());
  report.kv_scales = kv->scales_description();
  for (int rank = 0; rank < ranks->world_size(); ++rank) {
    report.weight_bytes += ranks->runner(rank).weight_bytes();
    report.scale_bytes += ranks->runner(rank).scale_bytes();
  }
  report.num_parameters = files ? count_parameters(*files, config) : ranks->runner(0).num_parameters();
}

// How many blocks fit beside weights and activations of some ranks, into the memory that they share.
int64_t Engine::State::num_blocks_of(const EngineOptions& options, Device own, int first_rank, int num_ranks) const {
  const StepLimits limits = step_limits(options);
  int64_t grantable = grantable_bytes(own, options.gpu_memory_utilization);
  KvBudget budget{.block_size = options.block_size,
                  .max_model_len = report.max_model_len,
                  .max_num_seqs = options.max_num_seqs,
                  .requested_bytes = kv_memory_of(options, num_ranks),
                  .unasked = own.kind == DeviceKind::kCpu ? KvBudget::Unasked::kModest : KvBudget::Unasked::kAll};
  for (int rank = first_rank; rank < first_rank + num_ranks; ++rank) {
    const Runner& runner = ranks->runner(rank);
    grantable -= runner.activation_bytes(limits, options.block_size);
    budget.bytes_per_block += kv->layout(runner.model(), options.block_size).bytes_per_block();
  }
  budget.available_bytes = std::max<int64_t>(0, grantable);
  return num_kv_blocks(budget);
}

// Sizes the KV cache by what is left beside weights and activations, and makes both.
void Engine::State::reserve(const EngineOptions& options) {
  const KvCacheLayout layout = kv->layout(ranks->runner(0).model(), options.block_size);
  const StepLimits limits = step_limits(options);
  const int world_size = ranks->world_size();
  for (int rank = 0; rank < world_size; ++rank) {
    report.activation_bytes += ranks->runner(rank).activation_bytes(limits, layout.block_size);
    report.workspace_bytes += ranks->runner(rank).workspace_bytes();
  }
  if (device.kind == DeviceKind::kCpu) {
    report.num_kv_blocks = num_blocks_of(options, device, 0, world_size);
  } else {  // the fewest that fit a GPU: every rank has its part of every block
    report.num_kv_blocks = std::numeric_limits<int64_t>::max();
    for (int rank = 0; rank < world_size; ++rank) {
      const Device own = RankTeam::device_of(device, rank);
      report.num_kv_blocks = std::min(report.num_kv_blocks, num_blocks_of(options, own, rank, 1));
    }
  }
  report.kv_bytes_per_token = layout.bytes_per_token() * world_size;
  const int64_t bf16_bytes_per_token =
      layout.num_planes() * layout.num_layers * layout.num_kv_heads * layout.head_dim * 2;
  report.kv_tokens_to_bf16 = static_cast<double>(bf16_bytes_per_token) / static_cast<double>(layout.bytes_per_token());
  report.kv_cache_bytes = report.num_kv_blocks * layout.bytes_per_block() * world_size;
  report.kv_cache_tokens = report.num_kv_blocks * layout.block_size;
  ranks->run_on_all([&](Runner& runner) { runner.reserve(limits, *kv, options.block_size, report.num_kv_blocks); });
  report.max_num_seqs = options.max_num_seqs;
  report.max_step_tokens = limits.max_tokens;
  report.num_graphs = ranks->runner(0).num_graphs();
  report.largest_graph = ranks->runner(0).largest_graph();
}

StepLimits Engine::State::step_limits(const EngineOptions& options) const {
  return {.max_tokens = scheduler_options(options).max_num_batched_tokens,
          .max_sequences = options.max_num_seqs,
          .max_model_len = report.max_model_len,
          .record_steps = !options.enforce_eager};
}

SchedulerOptions Engine::State::scheduler_options(const EngineOptions& options) const {
  const bool chunked = options.enable_chunked_prefill;
  const bool priorities = options.scheduling_policy == EngineOptions::SchedulingPolicy::kPriority;
  const int64_t budget = step_tokens(options, device);
  return {.blocks = {.num_blocks = report.num_kv_blocks,
                     .block_size = options.block_size,
                     .enable_prefix_caching = options.enable_prefix_caching},
          .max_model_len = report.max_model_len,
          // Without chunks a whole prompt must fit one step.
          .max_num_batched_tokens = chunked ? budget : std::max(budget, report.max_model_len),
          .max_num_seqs = options.max_num_seqs,
          .max_queued_requests =
              options.max_queued_requests > 0 ? options.max_queued_requests : int64_t{4} * options.max_num_seqs,
          .chunked_prefill = chunked ? SchedulerOptions::ChunkedPrefill::kYes : SchedulerOptions::ChunkedPrefill::kNo,
          .policy = priorities ? SchedulerOptions::Policy::kPriority : SchedulerOptions::Policy::kFcfs,
          .seed = options.seed};
}

int32_t step_tokens(const EngineOptions& options, Device device) {
  if (options.max_num_batched_tokens) return *options.max_num_batched_tokens;
  const bool offline = options.workload == EngineOptions::Workload::kOffline;
  return offline && device.kind != DeviceKind::kCpu ? 8192 : 2048;
}

Engine::Engine(const EngineOptions& options) : state_(std::make_unique<State>(options)) {}

Engine::~Engine() = default;

SubmitResult Engine::submit(Request request) {
  const auto vocab_size = static_cast<int32_t>(state_->config.vocab_size);
  request.sampling.validate(vocab_size);
  for (size_t i = 0; i < request.prompt_token_ids.size(); ++i) {
    const int32_t id = request.prompt_token_ids[i];
    if (id < 0 || id >= vocab_size) {
      fail(ErrorCode::kInvalid, "prompt: token id {} at position {} is outside the vocabulary of {} tokens", id, i,
           vocab_size);
    }
  }
  return state_->loop->submit(std::move(request));
}

void Engine::abort(const std::string& request_id) { state_->loop->abort(request_id); }
void Engine::abort_waiting(const std::string& request_id) { state_->loop->abort_waiting(request_id); }
void Engine::abort_sequence(const std::string& request_id, int32_t index) {
  state_->loop->abort_sequence(request_id, index);
}
void Engine::reset_prefix_cache() { state_->loop->reset_prefix_cache(); }

StepProfile Engine::profile_step(const ProfiledStep& step) {
  if (state_->report.num_graphs == 0) {
    fail(ErrorCode::kUnsupported, "a profile is one of a recorded step: {} records none", device_name(state_->device));
  }
  StepProfile profile;
  state_->loop->when_idle([&] {
    state_->ranks->run_on_all([&](Runner& runner) {
      StepProfile of_rank = runner.profile(step);
      if (runner.rank() == 0) profile = std::move(of_rank);
    });
  });
  return profile;
}

const EngineReport& Engine::report() const { return state_->report; }
const ModelConfig& Engine::model_config() const { return state_->config; }
EngineMetrics Engine::metrics() const { return state_->loop->metrics(); }
std::optional<std::string> Engine::fault() const { return state_->loop->fault(); }

}  // namespace octet
