// The body of POST /v1/responses, OpenAI's newer dialect, as the chat request that it means: one code path behind both.
// Nothing is stored: what would need another response's state is refused by name.
#pragma once

#include "octet/server/chat_request.h"

namespace octet {

struct ResponsesRequest {
  ChatRequest chat;
  Json echo;  // the members of a response that say what was asked for
};

// Throws ApiError.
ResponsesRequest read_responses_request(const Json& body, const ModelFacts& facts);

}  // namespace octet
