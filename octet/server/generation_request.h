// GenerationRequest: the fields that /v1/completions and /v1/chat/completions share: OpenAI's, and vLLM's further ones.
// Reading touches no engine: it needs to know a few facts of the model.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "octet/sampling/params.h"
#include "octet/server/fields.h"
#include "octet/server/grammar_request.h"
#include "octet/server/output_splitter.h"

namespace octet {

struct RequestLimits {
  int64_t max_prompts = 1024;    // of one request
  int64_t max_sequences = 1024;  // prompts times n
  int64_t max_n = 128;
  int64_t max_logprobs = 20;
  int64_t max_stops = 16;
  int64_t max_stop_bytes = 1024;
  int64_t max_messages = 10'000;
};

struct EmbeddingFacts {
  int64_t size = 0;                            // of a vector
  bool is_matryoshka = false;                  // it may be cut short
  std::vector<int64_t> matryoshka_dimensions;  // to these lengths; empty: to any
};

struct ModelFacts {
  std::vector<std::string> names;  // the first is the model's own
  int64_t vocab_size = 0;
  int64_t max_model_len = 0;
  SamplingParams defaults;  // the model's generation_config.json over octet's
  bool has_priorities = false;
  ToolStyle tool_style = ToolStyle::kNone;  // how the chat template calls tools
  RequestLimits limits;
  EmbeddingFacts embedding;
};

struct GenerationRequest {
  std::string model;  // the name it was asked for by
  SamplingParams sampling;
  bool max_tokens_given = false;
  bool stream = false;
  bool include_usage = false;     // stream_options
  bool continuous_usage = false;  // stream_options.continuous_usage_stats
  int64_t stream_interval = 1;    // tokens between chunks
  bool echo = false;
  bool return_token_ids = false;
  bool return_tokens_as_token_ids = false;
  std::optional<int64_t> truncate_prompt_tokens;  // keep the last so many; -1: as many as fit
  bool add_special_tokens = true;
  int32_t priority = 0;
  std::string grammar_field;  // of sampling.grammar
  std::string cache_salt;
  std::string request_id;  // empty: none was given
};

// Everything but prompts and messages. Throws ApiError.
GenerationRequest read_generation(Fields& fields, const ModelFacts& facts);
// Truncation of prompts, priority, cache salt and id: what requests that generate nothing have too. Throws ApiError.
void read_prompt_handling(Fields& fields, const ModelFacts& facts, GenerationRequest& request);
// Takes the client's limit, if it gave one, and refuses a min_tokens beyond the limit that then holds.
void take_max_tokens(std::optional<int64_t> given, GenerationRequest& generation);
// Logs, when debugging is on, what a request said that nobody reads.
void note_unknown(const Fields& fields);

// `model` is one of the names, or 404 model_not_found. Absent: the first name.
std::string read_model(Fields& fields, const ModelFacts& facts);

// Throws for fields that would change the answer and that octet does not implement; false, [] and the like mean
// nothing and are accepted.
void refuse_unsupported(Fields& fields, int64_t n);

}  // namespace octet
