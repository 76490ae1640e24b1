// Filters, tests, global functions and the methods of str, list and dict: tables of rows.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "octet/text/jinja/value.h"

namespace octet::jinja {

// Arguments after binding to a row's parameters: in their order, absent where the caller gave none.
using Bound = std::vector<std::optional<Value>>;

// "width=? first=? blank=?": parameter names in order, "=?" where it may be left out; a name that starts with '_' can
// only be given by position; "*" as the whole text: the row reads Arguments itself.
Bound bind_arguments(std::string_view function, std::string_view parameters, const Arguments& arguments);

struct Filter {
  std::string_view name, parameters;
  Value (*apply)(Interpreter& interpreter, const Value& subject, const Bound& bound, const Arguments& arguments);
};
const Filter* find_filter(std::string_view name);

struct Test {
  std::string_view name, parameters;
  bool (*apply)(Interpreter& interpreter, const Value& subject, const Bound& bound);
};
const Test* find_test(std::string_view name);

// A method of a str, list, tuple, dict or range; absent if Python's type has none of that name. Methods that change
// their object exist but cannot be called, as in the sandbox.
std::optional<Value> find_method(Interpreter& interpreter, const Value& object, std::string_view name);

// range, dict, namespace, raise_exception, strftime_now, cycler, joiner; absent for other names.
std::optional<Value> find_global(Interpreter& interpreter, std::string_view name);

}  // namespace octet::jinja
