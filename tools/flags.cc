#include "tools/flags.h"

#include <cctype>
#include <cmath>

#include "octet/base/file.h"
#include "octet/base/log.h"
#include "tools/terminal.h"

namespace octet {

int64_t parse_count(const std::string& text) {
  size_t used = 0;
  double value = 0;
  try {
    value = std::stod(text, &used);
  } catch (const std::exception&) {
    fail(ErrorCode::kUsage, "\"{}\" is not a number such as 4096, 32k or 1G", text);
  }
  const std::string suffix = text.substr(used);
  double factor = 1;
  if (suffix == "k")
    factor = 1e3;
  else if (suffix == "K")
    factor = 1024.0;
  else if (suffix == "m")
    factor = 1e6;
  else if (suffix == "M")
    factor = 1024.0 * 1024;
  else if (suffix == "g")
    factor = 1e9;
  else if (suffix == "G")
    factor = 1024.0 * 1024 * 1024;
  else if (!suffix.empty())
    fail(ErrorCode::kUsage, "\"{}\" is not a number such as 4096, 32k or 1G", text);
  const double result = value * factor;
  if (!(result >= 0) || result > 9e18) fail(ErrorCode::kUsage, "\"{}\" is out of range", text);
  return static_cast<int64_t>(std::llround(result));
}

void ModelFlags::add_to(CLI::App& command, Model model_kind) {
  EngineOptions& engine = options_.engine;
  command
      .add_option(model_kind == Model::kPositional ? "model" : "--model", model,
                  "a local folder, or a name in the Hugging Face cache")
      ->required();
  command.add_option("--tokenizer", options_.tokenizer, "tokenizer folder or name, when not the model's own");
  command.add_option("--revision", options_.revision, "revision in the Hugging Face cache (default: main)");
  command.add_option("--dtype", engine.dtype, "auto, bfloat16, float16, float32: of weights that are not quantised")
      ->capture_default_str();
  command
      .add_option("--quantization", engine.quant.quantization,
                  "quantise while loading: fp8 (= fp8_channel), fp8_tensor, fp8_channel, fp8_block, int8")
      ->group("Quantisation");
  command.add_option("--quantization-ignore", engine.quant.ignore, "modules to leave as they are (name or re:pattern)")
      ->group("Quantisation");
  command.add_flag("--quantize-lm-head", engine.quant.quantize_lm_head, "quantise the lm_head too")
      ->group("Quantisation");
  command.add_option("--kv-cache-dtype", engine.kv_cache_dtype, "auto, bf16, fp8, fp8_e4m3, fp8_e5m2")
      ->capture_default_str()
      ->group("Memory");
  command
      .add_option("--kv-cache-dtype-skip-layers", engine.kv_cache_dtype_skip_layers,
                  "layers that an 8-bit KV cache leaves in the plain dtype: indices, or sliding_window")
      ->group("Memory");
  command
      .add_flag("--calculate-kv-scales", engine.calculate_kv_scales,
                "take an 8-bit KV cache's scales that the checkpoint lacks from the first tokens")
      ->group("Memory");
  command.add_option("--max-model-len", max_model_len_, "longest sequence, e.g. 4096 or 32k (default: the model's)")
      ->group("Memory");
  command
      .add_option("--kv-cache-memory-bytes", kv_cache_memory_,
                  "size of the KV cache, e.g. 2G (default: from free memory)")
      ->group("Memory");
  command
      .add_option("--gpu-memory-utilization", engine.gpu_memory_utilization,
                  "share of a GPU's memory to use, from 0 to 1; no meaning on the CPU")
      ->capture_default_str()
      ->group("Memory");
  command.add_option("--block-size", engine.block_size, "tokens in a KV cache block")
      ->capture_default_str()
      ->group("Memory");
  command.add_option("--max-num-seqs", engine.max_num_seqs, "sequences that run at once")
      ->capture_default_str()
      ->group("Scheduling");
  command
      .add_option("--max-num-batched-tokens", max_num_batched_tokens_,
                  "tokens in one step (2048; offline on a GPU, as bench throughput is, 8192)")
      ->group("Scheduling");
  command
      .add_flag("--enable-prefix-caching,!--no-enable-prefix-caching", engine.enable_prefix_caching,
                "share common prefixes (on)")
      ->group("Scheduling");
  command
      .add_flag("--enable-chunked-prefill,!--no-enable-chunked-prefill", engine.enable_chunked_prefill,
                "cut long prompts (on)")
      ->group("Scheduling");
  command.add_option("--scheduling-policy", scheduling_policy_, "fcfs or priority")
      ->check(CLI::IsMember({"fcfs", "priority"}))
      ->group("Scheduling");
  command.add_option("--device", engine.device, "auto (the first GPU, or the CPU), cuda, cuda:<index>, cpu")
      ->capture_default_str()
      ->group("Machine");
  command.add_option("-t,--threads", engine.num_threads, "processor threads (0: all)")
      ->capture_default_str()
      ->group("Machine");
  command.add_option("--tensor-parallel-size,--tp", engine.tensor_parallel_size, "ranks that share the model")
      ->capture_default_str()
      ->group("Machine");
  command
      .add_flag("--enable-expert-parallel", engine.enable_expert_parallel,
                "ranks have whole experts, not a share of each")
      ->group("Machine");
  command.add_option("--seed", engine.seed, "seed of everything random")->capture_default_str()->group("Machine");
  command.add_option("--load-format", load_format_, "auto, or dummy: random weights, no files")
      ->check(CLI::IsMember({"auto", "safetensors", "dummy"}))
      ->group("Machine");
  command.add_option("--chat-template", chat_template_file_, "a Jinja file instead of the model's template");
  command.add_flag("--quiet", quiet_, "no start-up report");
  command
      .add_flag(
          "--deterministic", engine.deterministic,
          "a request's tokens and logprobs depend on nothing else in the batch (always so on the CPU; slower on a GPU)")
      ->group("Machine");
  command
      .add_flag("--enforce-eager", engine.enforce_eager, "launch every kernel by itself, record no steps (GPU only)")
      ->group("Machine");
  command
      .add_flag(
          "--trust-remote-code",
          [](int64_t) { log_warning("octet never runs code from a model; --trust-remote-code is ignored"); },
          "accepted, ignored")
      ->group("");
  command
      .add_option_function<double>(
          "--swap-space", [](const double&) { log_warning("octet never swaps; --swap-space is ignored"); },
          "accepted, ignored")
      ->group("");
}

LlmOptions ModelFlags::options() const {
  LlmOptions options = options_;
  options.model = model;
  EngineOptions& engine = options.engine;
  if (!max_model_len_.empty() && max_model_len_ != "auto") engine.max_model_len = parse_count(max_model_len_);
  if (!kv_cache_memory_.empty()) engine.kv_cache_memory_bytes = parse_count(kv_cache_memory_);
  if (!max_num_batched_tokens_.empty())
    engine.max_num_batched_tokens = static_cast<int32_t>(parse_count(max_num_batched_tokens_));
  if (scheduling_policy_ == "priority") engine.scheduling_policy = EngineOptions::SchedulingPolicy::kPriority;
  engine.dummy_weights = load_format_ == "dummy";
  if (!chat_template_file_.empty()) options.chat_template = read_file(chat_template_file_, int64_t{1} << 20);
  if (quiet_) set_log_level(LogLevel::kWarning);
  if (!quiet_ && stderr_is_terminal()) {
    engine.on_load_progress = [bar = ProgressBar("loading", "MiB")](int64_t done, int64_t total) mutable {
      bar.update(done >> 20, total >> 20);
    };
  }
  return options;
}

void SamplingFlags::add_to(CLI::App& command) {
  const auto add = [&](const char* name, auto& value, const char* text) {
    command.add_option(name, value, text)->group("Sampling");
  };
  add("--max-tokens", max_tokens_, "longest answer in tokens");
  add("--min-tokens", min_tokens_, "shortest answer in tokens");
  add("--temperature", temperature_, "0: greedy");
  add("--top-p", top_p_, "nucleus");
  add("--top-k", top_k_, "0: all");
  add("--min-p", min_p_, "least probability relative to the best");
  add("--repetition-penalty", repetition_penalty_, "over prompt and output");
  add("--presence-penalty", presence_penalty_, "over the output");
  add("--frequency-penalty", frequency_penalty_, "over the output");
  add("--sampling-seed", seed_, "seed of this request");
  add("-n", n_, "answers per prompt");
  add("--logprobs", logprobs_, "alternatives to report per token");
  add("--stop", stop_, "stop strings");
  add("--stop-token-ids", stop_token_ids_, "stop ids");
  command.add_flag("--ignore-eos", ignore_eos_, "go on to --max-tokens")->group("Sampling");
}

SamplingParams SamplingFlags::params(SamplingParams params) const {
  const auto take = [](const auto& given, auto& value) {
    if (given) value = *given;
  };
  take(temperature_, params.temperature);
  take(top_p_, params.top_p);
  take(min_p_, params.min_p);
  take(top_k_, params.top_k);
  take(repetition_penalty_, params.repetition_penalty);
  take(presence_penalty_, params.presence_penalty);
  take(frequency_penalty_, params.frequency_penalty);
  take(min_tokens_, params.min_tokens);
  take(n_, params.n);
  if (max_tokens_) params.max_tokens = *max_tokens_;
  if (seed_) params.seed = *seed_;
  if (logprobs_) params.logprobs = *logprobs_;
  params.stop = stop_;
  params.stop_token_ids = stop_token_ids_;
  params.ignore_eos = ignore_eos_;
  return params;
}

}  // namespace octet
