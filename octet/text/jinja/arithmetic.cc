// The arithmetic operators of operations.h.
#include <cmath>

#include "octet/text/jinja/format.h"
#include "octet/text/jinja/operations.h"

namespace octet::jinja {
namespace {

std::string_view symbol(BinaryOp op) {
  switch (op) {
    case BinaryOp::kAdd:
      return "+";
    case BinaryOp::kSubtract:
      return "-";
    case BinaryOp::kMultiply:
      return "*";
    case BinaryOp::kDivide:
      return "/";
    case BinaryOp::kFloorDivide:
      return "//";
    case BinaryOp::kModulo:
      return "%";
    case BinaryOp::kPower:
      return "**";
    case BinaryOp::kAnd:
      return "and";
    case BinaryOp::kOr:
      return "or";
  }
  return "?";
}

[[noreturn]] void overflow() { raise("an integer is too large"); }
[[noreturn]] void zero_division() { raise("division by zero"); }

Value integer_power(Integer base, Integer exponent) {
  if (exponent < 0) {
    if (base == 0) zero_division();
    return std::pow(static_cast<double>(base), static_cast<double>(exponent));
  }
  Integer result = 1;
  for (; exponent > 0; exponent >>= 1) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) overflow();
    if (exponent > 1 && __builtin_mul_overflow(base, base, &base)) overflow();
  }
  return result;
}

Value integer_arithmetic(BinaryOp op, Integer a, Integer b) {
  constexpr Integer kMin = Integer{1} << 126;  // the smallest value's magnitude is never divided: see below
  Integer result = 0;
  const bool divides = op == BinaryOp::kDivide || op == BinaryOp::kFloorDivide || op == BinaryOp::kModulo;
  if (divides && b == 0) zero_division();
  if (divides && b == -1 && a < -kMin) overflow();
  switch (op) {
    case BinaryOp::kAdd:
      if (__builtin_add_overflow(a, b, &result)) overflow();
      return result;
    case BinaryOp::kSubtract:
      if (__builtin_sub_overflow(a, b, &result)) overflow();
      return result;
    case BinaryOp::kMultiply:
      if (__builtin_mul_overflow(a, b, &result)) overflow();
      return result;
    case BinaryOp::kDivide:
      return static_cast<double>(a) / static_cast<double>(b);
    case BinaryOp::kFloorDivide:
      return a / b - ((a % b != 0 && (a % b < 0) != (b < 0)) ? 1 : 0);
    case BinaryOp::kModulo:
      return a % b + ((a % b != 0 && (a % b < 0) != (b < 0)) ? b : 0);
    default:
      return integer_power(a, b);
  }
}

Value float_arithmetic(BinaryOp op, double a, double b) {
  const bool divides = op == BinaryOp::kDivide || op == BinaryOp::kFloorDivide || op == BinaryOp::kModulo;
  if (divides && b == 0) zero_division();
  const auto modulo = [&] {
    double rest = std::fmod(a, b);
    if (rest != 0 && (rest < 0) != (b < 0)) rest += b;
    return rest == 0 ? std::copysign(0.0, b) : rest;
  };
  switch (op) {
    case BinaryOp::kAdd:
      return a + b;
    case BinaryOp::kSubtract:
      return a - b;
    case BinaryOp::kMultiply:
      return a * b;
    case BinaryOp::kDivide:
      return a / b;
    case BinaryOp::kModulo:
      return modulo();
    case BinaryOp::kFloorDivide: {
      const double quotient = (a - modulo()) / b;
      double floor = std::floor(quotient);
      if (quotient - floor > 0.5) floor += 1;
      return quotient == 0 ? std::copysign(0.0, a / b) : floor;
    }
    default:
      break;
  }
  if (a == 0 && b < 0) zero_division();
  const double result = std::pow(a, b);
  if (a < 0 && std::floor(b) != b && !std::isinf(b)) raise("complex numbers are not supported");
  if (std::isinf(result) && !std::isinf(a) && !std::isinf(b)) overflow();
  return result;
}

Value add_texts(Runtime& runtime, const Value& a, const Value& b) {
  const bool markup = a.text().is_markup() || b.text().is_markup();
  const Text left = markup ? escape_html(a, a.text()) : a.text();
  const Text right = markup ? escape_html(b, b.text()) : b.text();
  runtime.reserve_text(Integer(left.bytes().size()) + Integer(right.bytes().size()));
  return TextBuilder().append(left).append(right).build().as_markup(markup);
}

Value repeat(Runtime& runtime, const Value& value, Integer count) {
  if (count < 0) count = 0;
  if (value.is_text()) {
    if (value.text().empty()) return value;
    if (count > INT32_MAX) count = INT32_MAX;  // more than any limit allows
    runtime.reserve_text(Integer(value.text().bytes().size()) * count);
    TextBuilder out;
    for (Integer i = 0; i < count; ++i) out.append(value.text());
    return out.build();
  }
  const auto* sequence = value.as<Sequence>();
  if (count > INT32_MAX) count = INT32_MAX;
  runtime.reserve_elements(Integer(sequence->items.size()) * count);
  std::vector<Value> items;
  if (sequence->items.empty()) count = 0;
  for (Integer i = 0; i < count; ++i) items.insert(items.end(), sequence->items.begin(), sequence->items.end());
  return runtime.make_sequence(sequence->type, std::move(items)).with_origin(value.origin());
}

}  // namespace

Value arithmetic(Runtime& runtime, BinaryOp op, const Value& a, const Value& b) {
  const TextOrigin origin = combine(a.origin(), b.origin());
  const auto x = as_integer(a), y = as_integer(b);
  if (x && y) return integer_arithmetic(op, *x, *y).with_origin(origin);
  if (const auto p = as_number(a), q = as_number(b); p && q) return float_arithmetic(op, *p, *q).with_origin(origin);
  if (a.is_text() && op == BinaryOp::kModulo) return format_percent(runtime, a.text(), b);
  if (op == BinaryOp::kAdd && a.is_text() && b.is_text()) return add_texts(runtime, a, b);
  const auto *s = a.as<Sequence>(), *t = b.as<Sequence>();
  if (op == BinaryOp::kAdd && s && t && s->type == t->type) {
    runtime.reserve_elements(Integer(s->items.size()) + Integer(t->items.size()));
    std::vector<Value> items = s->items;
    items.insert(items.end(), t->items.begin(), t->items.end());
    return runtime.make_sequence(s->type, std::move(items)).with_origin(origin);
  }
  if (op == BinaryOp::kMultiply && y && (a.is_text() || s)) return repeat(runtime, a, *y);
  if (op == BinaryOp::kMultiply && x && (b.is_text() || t)) return repeat(runtime, b, *x);
  if (a.is_undefined()) raise_undefined(a);
  if (b.is_undefined()) raise_undefined(b);
  raise("'{}' cannot join '{}' and '{}'", symbol(op), type_name(a), type_name(b));
}

Value negative(const Value& value) {
  if (value.is_float()) return Value(-value.floating()).with_origin(value.origin());
  const Integer integer = need_integer(value, "unary -");
  Integer result = 0;
  if (__builtin_sub_overflow(Integer{0}, integer, &result)) overflow();
  return Value(result).with_origin(value.origin());
}

Value positive(const Value& value) {
  if (value.is_float()) return value;
  return Value(need_integer(value, "unary +")).with_origin(value.origin());
}

}  // namespace octet::jinja
