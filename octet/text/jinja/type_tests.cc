// Tests ("x is defined") and the lookup of filters and tests by name.
#include <algorithm>
#include <cmath>

#include "octet/text/jinja/filter_rows.h"
#include "octet/text/jinja/interpreter.h"
#include "octet/text/jinja/method_rows.h"
#include "octet/text/jinja/operations.h"
#include "octet/text/jinja/unicode.h"

namespace octet::jinja {
namespace {

Value remainder(Interpreter& run, const Value& value, const Value& divisor) {
  if (value.is_text()) raise("not a number: {}", type_name(value));
  return arithmetic(run, BinaryOp::kModulo, value, divisor);
}

template <CompareOp op>
bool compare_test(Interpreter& run, const Value& value, const Bound& bound) {
  return compare(run, op, value, *bound[0]);
}

template <Value::Kind kind>
bool kind_test(Interpreter&, const Value& value, const Bound&) {
  return value.kind() == kind;
}

template <bool wanted>
bool bool_test(Interpreter&, const Value& value, const Bound&) {
  return value.is_bool() && value.boolean() == wanted;
}

bool defined_test(Interpreter&, const Value& value, const Bound&) { return !value.is_undefined(); }
bool odd_test(Interpreter& run, const Value& value, const Bound&) { return equal(run, remainder(run, value, 2), 1); }
bool even_test(Interpreter& run, const Value& value, const Bound&) { return equal(run, remainder(run, value, 2), 0); }
bool divisible_test(Interpreter& run, const Value& value, const Bound& bound) {
  return equal(run, remainder(run, value, *bound[0]), 0);
}
bool number_test(Interpreter&, const Value& value, const Bound&) { return as_number(value).has_value(); }
bool mapping_test(Interpreter&, const Value& value, const Bound&) { return as_dict(value) != nullptr; }
bool iterable_test(Interpreter&, const Value& value, const Bound&) { return is_iterable(value); }
bool sequence_test(Interpreter&, const Value& value, const Bound&) { return length(value) && !value.as<DictView>(); }
bool callable_test(Interpreter&, const Value& value, const Bound&) {
  const auto* callable = value.as<Callable>();  // an undefined value has __call__ too, which raises
  return value.is_undefined() || callable != nullptr;
}
bool same_test(Interpreter&, const Value& value, const Bound& bound) { return identical(value, *bound[0]); }
bool escaped_test(Interpreter&, const Value& value, const Bound&) {
  return value.is_text() && value.text().is_markup();
}
bool lower_test(Interpreter& run, const Value& value, const Bound&) {
  return has_case(to_text(run, value), is_lower, is_upper);
}
bool upper_test(Interpreter& run, const Value& value, const Bound&) {
  return has_case(to_text(run, value), is_upper, is_lower);
}
bool filter_test(Interpreter&, const Value& value, const Bound&) {
  return value.is_text() && find_filter(value.text().bytes());
}
bool test_test(Interpreter&, const Value& value, const Bound&) {
  return value.is_text() && find_test(value.text().bytes());
}

constexpr Test kTests[] = {
    {"!=", "other", compare_test<CompareOp::kNotEqual>},
    {"<", "other", compare_test<CompareOp::kLess>},
    {"<=", "other", compare_test<CompareOp::kLessEqual>},
    {"==", "other", compare_test<CompareOp::kEqual>},
    {">", "other", compare_test<CompareOp::kGreater>},
    {">=", "other", compare_test<CompareOp::kGreaterEqual>},
    {"boolean", "", kind_test<Value::Kind::kBool>},
    {"callable", "", callable_test},
    {"defined", "", defined_test},
    {"divisibleby", "num", divisible_test},
    {"eq", "other", compare_test<CompareOp::kEqual>},
    {"equalto", "other", compare_test<CompareOp::kEqual>},
    {"escaped", "", escaped_test},
    {"even", "", even_test},
    {"false", "", bool_test<false>},
    {"filter", "", filter_test},
    {"float", "", kind_test<Value::Kind::kFloat>},
    {"ge", "other", compare_test<CompareOp::kGreaterEqual>},
    {"greaterthan", "other", compare_test<CompareOp::kGreater>},
    {"gt", "other", compare_test<CompareOp::kGreater>},
    {"in", "seq", compare_test<CompareOp::kIn>},
    {"integer", "", kind_test<Value::Kind::kInteger>},
    {"iterable", "", iterable_test},
    {"le", "other", compare_test<CompareOp::kLessEqual>},
    {"lessthan", "other", compare_test<CompareOp::kLess>},
    {"lower", "", lower_test},
    {"lt", "other", compare_test<CompareOp::kLess>},
    {"mapping", "", mapping_test},
    {"ne", "other", compare_test<CompareOp::kNotEqual>},
    {"none", "", kind_test<Value::Kind::kNone>},
    {"number", "", number_test},
    {"odd", "", odd_test},
    {"sameas", "other", same_test},
    {"sequence", "", sequence_test},
    {"string", "", kind_test<Value::Kind::kText>},
    {"test", "", test_test},
    {"true", "", bool_test<true>},
    {"undefined", "", kind_test<Value::Kind::kUndefined>},
    {"upper", "", upper_test},
};

}  // namespace

const Test* find_test(std::string_view name) {
  const auto* row =
      std::find_if(std::begin(kTests), std::end(kTests), [&](const Test& test) { return test.name == name; });
  return row == std::end(kTests) ? nullptr : row;
}

const Filter* find_filter(std::string_view name) {
  for (const auto* rows : {&text_filters(), &number_filters(), &sequence_filters()}) {
    const auto row =
        std::find_if(rows->begin(), rows->end(), [&](const Filter& filter) { return filter.name == name; });
    if (row != rows->end()) return &*row;
  }
  return nullptr;
}

}  // namespace octet::jinja
