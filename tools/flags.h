// Flags that several subcommands share, under vLLM's names and defaults.
#pragma once

#include <CLI/App.hpp>
#include <optional>
#include <string>
#include <vector>

#include "octet/api/llm.h"

namespace octet {

// "4096", "32k", "1M": tokens or bytes with a decimal (k, m, g) or binary (K, M, G) suffix, as in vLLM.
int64_t parse_count(const std::string& text);

class ModelFlags {
 public:
  enum class Model : uint8_t { kPositional, kFlag };
  // Adds MODEL and every engine flag to `command`.
  void add_to(CLI::App& command, Model model = Model::kPositional);
  // What they say. A progress bar for loading is shown when stderr is a terminal.
  LlmOptions options() const;

  std::string model;

 private:
  LlmOptions options_;
  std::string max_model_len_, kv_cache_memory_, load_format_ = "auto", chat_template_file_;
  std::string max_num_batched_tokens_;
  std::string scheduling_policy_ = "fcfs";
  bool quiet_ = false;
};

class SamplingFlags {
 public:
  void add_to(CLI::App& command);
  // The flags given, over `defaults` (the model's own).
  SamplingParams params(SamplingParams defaults) const;

 private:
  std::optional<double> temperature_, top_p_, min_p_, repetition_penalty_, presence_penalty_, frequency_penalty_;
  std::optional<int32_t> top_k_, max_tokens_, min_tokens_, n_, logprobs_;
  std::optional<int64_t> seed_;
  std::vector<std::string> stop_;
  std::vector<int32_t> stop_token_ids_;
  bool ignore_eos_ = false;
};

}  // namespace octet
