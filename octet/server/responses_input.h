// `input` and `tools` of POST /v1/responses as messages and tools of a chat.
#pragma once

#include "octet/server/fields.h"
#include "octet/server/generation_request.h"

namespace octet {

// A string, or a list of items: messages, function calls and their outputs, reasoning. Calls and reasoning that stand
// together become one message of the assistant's, as templates want them. Throws ApiError.
Json chat_messages_of_input(Fields& fields, const RequestLimits& limits);
// Functions, whose members stand side by side here and below "function" in a chat. Throws ApiError.
Json chat_tools_of_responses(const Json& tools);

}  // namespace octet
