// Python's ways to write values: printf-style "%", str.format, json.dumps.
#pragma once

#include <optional>
#include <string>

#include "octet/text/jinja/runtime.h"

namespace octet::jinja {

Text format_percent(Runtime& runtime, const Text& format, const Value& arguments);  // format % arguments
// format.format(*positional, **named): fields {}, {0}, {name}, {0.attr}, {0[key]} with conversions and specifications.
Text format_braces(Interpreter& interpreter, const Text& format, const Arguments& arguments);
std::string format_integer(Integer value, int base);  // with sign, lower case, without prefix

struct JsonStyle {
  std::optional<std::string> indent;  // one level's worth; absent: all on one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool ensure_ascii = false;
  bool sort_keys = false;
};
Text dump_json(Runtime& runtime, const Value& value, const JsonStyle& style);

}  // namespace octet::jinja
