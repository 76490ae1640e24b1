// The fields that ask for structured output: OpenAI's response_format, vLLM's structured_outputs and guided_*, SGLang's
// and llama.cpp's names of the same.
#pragma once

#include <optional>
#include <string>

#include "octet/sampling/grammar.h"
#include "octet/server/fields.h"
#include "octet/server/output_splitter.h"

namespace octet {

struct GrammarRequest {
  GrammarSpec spec;
  std::string field;  // that errors are about
};

// Nothing when the answer may be any text. Throws ApiError, also when two fields ask.
std::optional<GrammarRequest> read_grammar(Fields& fields);

// The same language behind what a model that reasons writes first.
GrammarSpec after_reasoning(const GrammarSpec& spec, ReasoningStyle style);

}  // namespace octet
