// JSON lines in, JSON lines out: the frame of tokenize, detokenize and render.
#pragma once

#include <functional>

#include "octet/base/json.h"

namespace octet {

// Calls `answer` for each line of standard input that is a JSON object and prints what it returns. A line that fails
// gives
// {"error": text} and the work goes on.
void answer_json_lines(const std::function<Json(const JsonObject&)>& answer);

}  // namespace octet
