// The body of POST /v1/chat/completions.
#pragma once

#include <optional>
#include <string>

#include "octet/api/llm.h"
#include "octet/server/generation_request.h"

namespace octet {

struct ChatRequest {
  GenerationRequest generation;
  Json messages;        // checked, as given
  ChatOptions options;  // of the template
  bool may_call_tools = false;
  bool must_call_tools = false;  // and sampling.grammar says in which form
  bool calls_named_tool = false;
  bool include_reasoning = true;
};

// Throws ApiError.
ChatRequest read_chat(const Json& body, const ModelFacts& facts);

// The fields that choose how messages are rendered; shared with /tokenize.
void read_template_options(Fields& fields, const Json& messages, ChatOptions& options);
// A list of messages with known roles and text contents. What is not text is refused by name.
Json read_messages(Fields& fields, const RequestLimits& limits);

// What the templates of text models understand: lists of text parts joined, developer messages as system ones, the
// arguments of tool calls as objects.
Json plain_messages(const Json& messages);

}  // namespace octet
