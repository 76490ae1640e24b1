// The body of POST /v1/embeddings.
#pragma once

#include "octet/server/completion_request.h"

namespace octet {

struct EmbeddingRequest {
  CompletionRequest texts;  // `input` as the prompts of requests that generate nothing
  enum class Encoding : uint8_t { kFloat, kBase64 } encoding = Encoding::kFloat;
  int64_t dimensions = 0;         // 0: all that the model has
  std::optional<bool> normalize;  // nothing: as the model's files say
};

// Throws ApiError.
EmbeddingRequest read_embedding(const Json& body, const ModelFacts& facts);

}  // namespace octet
