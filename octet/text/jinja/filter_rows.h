// Tables of filters; see find_filter in builtins.h.
#pragma once

#include <string>
#include <vector>

#include "octet/text/jinja/builtins.h"

namespace octet::jinja {

const std::vector<Filter>& text_filters();
const std::vector<Filter>& number_filters();
const std::vector<Filter>& sequence_filters();

// jinja2's make_attrgetter: "a.b.0" or an integer, applied one after the other; absent gives the value itself.
Value get_path(Interpreter& interpreter, const Value& value, const std::optional<Value>& path,
               const std::optional<Value>& fallback = std::nullopt);

}  // namespace octet::jinja
