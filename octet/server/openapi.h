// The OpenAPI document of the server: what GET /openapi.json answers. One row for each route that ApiServer serves.
#pragma once

#include <string>

#include "octet/base/json.h"

namespace octet {

// OpenAPI 3.1. Bodies are described as far as they are checked: fields that a schema does not name are taken and
// ignored.
Json openapi_document(const std::string& version);

}  // namespace octet
