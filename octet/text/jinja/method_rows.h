// Tables of methods, one per Python type; see find_method in builtins.h.
#pragma once

#include <string_view>
#include <vector>

#include "octet/text/jinja/builtins.h"

namespace octet::jinja {

struct MethodRow {
  std::string_view name, parameters;
  Value (*call)(Interpreter& interpreter, const Value& self, const Bound& bound, const Arguments& arguments);
};

const std::vector<MethodRow>& str_methods();

// str.islower and str.isupper: some character `is`, none `is_not`.
bool has_case(const Text& text, bool (*is)(char32_t), bool (*is_not)(char32_t));

}  // namespace octet::jinja
