// The body of POST /v1/messages, Anthropic's dialect, as the chat request that it means: one code path behind both.
#pragma once

#include "octet/server/chat_request.h"

namespace octet {

// Throws ApiError.
ChatRequest read_messages_request(const Json& body, const ModelFacts& facts);
// The body of POST /v1/messages/count_tokens: the same without `max_tokens`.
ChatRequest read_count_tokens(const Json& body, const ModelFacts& facts);

}  // namespace octet
