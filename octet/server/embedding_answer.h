// How answers of POST /v1/embeddings are worded. They are never streamed.
#pragma once

#include "octet/server/answer.h"
#include "octet/server/embedding_request.h"

namespace octet {

struct EmbeddingOptions {
  EmbeddingRequest::Encoding encoding = EmbeddingRequest::Encoding::kFloat;
  int64_t dimensions = 0;  // 0: all
  bool normalize = true;
};

std::unique_ptr<AnswerFormat> embedding_format(const EmbeddingOptions& options);

}  // namespace octet
