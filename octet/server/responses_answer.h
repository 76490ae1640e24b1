// How answers of POST /v1/responses are worded: OpenAI's responses, and the events of their streams. One choice.
#pragma once

#include "octet/server/openai_answer.h"

namespace octet {

// `echo`: the members of a response that say what was asked for. Of `options`, those of log-probabilities count.
std::unique_ptr<AnswerFormat> responses_format(Json echo, const AnswerOptions& options);

}  // namespace octet
