// Python's operators on values. All raise where Python raises.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "octet/text/jinja/ast.h"
#include "octet/text/jinja/runtime.h"

namespace octet::jinja {

std::string type_name(const Value& value);  // "str", "NoneType", ...
[[noreturn]] void raise_undefined(const Value& value);

bool truthy(const Value& value);
bool equal(Runtime& runtime, const Value& a, const Value& b);
bool identical(const Value& a, const Value& b);  // Python's `is`
// Negative, zero, positive; raises for types without an order between them. NaN is unordered: nullopt.
std::optional<int> order(Runtime& runtime, const Value& a, const Value& b);
bool less(Runtime& runtime, const Value& a, const Value& b);

Text to_text(Runtime& runtime, const Value& value);  // str()
Text repr(Runtime& runtime, const Value& value);
std::string float_repr(double value);

Value arithmetic(Runtime& runtime, BinaryOp op, const Value& a, const Value& b);
Value negative(const Value& value);
Value positive(const Value& value);
bool compare(Runtime& runtime, CompareOp op, const Value& a, const Value& b);
bool contains(Runtime& runtime, const Value& container, const Value& item);

// Numbers and bools; nullopt for everything else. as_integer is for int and bool only.
std::optional<double> as_number(const Value& value);
std::optional<Integer> as_integer(const Value& value);
// For arguments: raises "<what>: expected an integer, found a str".
Integer need_integer(const Value& value, std::string_view what);
int64_t need_int64(const Value& value, std::string_view what);
const Text& need_text(const Value& value, std::string_view what);
const Dict* as_dict(const Value& value);

std::optional<int64_t> length(const Value& value);  // len(); nullopt where Python has none
// obj[index]; nullopt where Python raises TypeError, KeyError or IndexError.
std::optional<Value> subscript(Runtime& runtime, const Value& object, const Value& index);
struct Slice {
  Value begin, end, step;  // None where left out
};
// obj[begin:end:step].
Value slice(Runtime& runtime, const Value& object, const Slice& slice);

// iter(): raises for what cannot be iterated. `next` yields nothing at the end.
bool is_iterable(const Value& value);
std::function<std::optional<Value>()> iterate(Runtime& runtime, const Value& value);
std::vector<Value> to_vector(Runtime& runtime, const Value& value);

Text escape_html(const Value& value, const Text& text);  // leaves markup as it is

}  // namespace octet::jinja
