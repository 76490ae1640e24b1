// The body of POST /v1/completions.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "octet/server/generation_request.h"

namespace octet {

// A prompt as it was given: text, or token ids of the vocabulary.
using PromptInput = std::variant<std::string, std::vector<int32_t>>;

struct CompletionRequest {
  GenerationRequest generation;
  std::vector<PromptInput> prompts;  // at least one, none empty
  std::string prompts_field = "prompt";
};

// Throws ApiError.
CompletionRequest read_completion(const Json& body, const ModelFacts& facts);

// All four forms of "prompt": a string, a list of strings, a list of ids, a list of lists of ids.
std::vector<PromptInput> read_prompts(Fields& fields, std::string_view key, const ModelFacts& facts);

}  // namespace octet
