// A request's body as a JSON object.
#pragma once

#include <string>

#include "octet/base/json.h"

namespace octet {

// Throws ApiError: 400 json_parse_error with the byte offset (not JSON, invalid UTF-8, nested deeper than 128, a key
// that occurs twice, a number beyond double), 400 invalid_value when it is no object. Halves of surrogate pairs, which
// cut-off emoji leave in texts, are read as U+FFFD.
Json parse_body(std::string body);

}  // namespace octet
