// How answers of POST /v1/messages are worded: Anthropic's messages, and the events of its streams. One choice.
#pragma once

#include "octet/server/answer.h"

namespace octet {

std::unique_ptr<AnswerFormat> messages_format();

}  // namespace octet
