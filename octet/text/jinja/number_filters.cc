// Filters on numbers and on any value.
#include <charconv>
#include <cmath>

#include "octet/text/jinja/filter_rows.h"
#include "octet/text/jinja/interpreter.h"
#include "octet/text/jinja/operations.h"
#include "octet/text/jinja/text_operations.h"

namespace octet::jinja {
namespace {

// The digits of Python's int("...") and float("..."): outer white space and single inner underscores go.
std::optional<std::string> number_text(Interpreter& run, const Text& text) {
  const Text stripped = strip(run, text, Side::kBoth, std::nullopt);
  const std::string_view bytes = stripped.bytes();
  std::string digits;
  for (size_t i = 0; i < bytes.size(); ++i) {
    const auto digit = [&](size_t at) {
      return at < bytes.size() && std::isalnum(static_cast<unsigned char>(bytes[at])) != 0;
    };
    if (bytes[i] != '_') {
      digits.push_back(bytes[i]);
    } else if (i == 0 || !digit(i - 1) || !digit(i + 1)) {
      return std::nullopt;
    }
  }
  return digits;
}

std::optional<Value> parse_integer(Interpreter& run, const Text& text, int base) {
  auto digits = number_text(run, text);
  if (!digits) return std::nullopt;
  const bool is_negative = digits->starts_with("-");
  if (is_negative || digits->starts_with("+")) digits->erase(0, 1);
  if (digits->size() > 2 && (*digits)[0] == '0') {
    const char mark = static_cast<char>((*digits)[1] | 0x20);
    const int marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    if (marked != 0 && (base == marked || base == 0)) digits->erase(0, 2), base = marked;
  }
  if (digits->empty()) return std::nullopt;
  Integer value = 0;
  for (const char c : *digits) {
    const int lower = c | 0x20;
    const int digit = c >= '0' && c <= '9' ? c - '0' : lower >= 'a' && lower <= 'z' ? lower - 'a' + 10 : 99;
    if (digit >= (base == 0 ? 10 : base)) return std::nullopt;
    if (__builtin_mul_overflow(value, Integer{base == 0 ? 10 : base}, &value) ||
        __builtin_add_overflow(value, Integer{digit}, &value)) {
      raise("an integer is too large");
    }
  }
  return Value(is_negative ? -value : value).with_origin(text.origin());
}

std::optional<double> parse_float(Interpreter& run, const Text& text) {
  auto digits = number_text(run, text);
  if (!digits) return std::nullopt;
  const bool is_negative = digits->starts_with("-");
  if (is_negative || digits->starts_with("+")) digits->erase(0, 1);
  std::string lowered = *digits;
  for (char& c : lowered) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  double value = 0;
  if (lowered == "inf" || lowered == "infinity") {
    value = HUGE_VAL;
  } else if (lowered == "nan") {
    value = std::nan("");
  } else {
    if (lowered.empty() || std::isalpha(static_cast<unsigned char>(lowered[0])) || lowered[0] == '-')
      return std::nullopt;
    const auto parsed = std::from_chars(lowered.data(), lowered.data() + lowered.size(), value);
    if (parsed.ptr != lowered.data() + lowered.size()) return std::nullopt;
    if (parsed.ec == std::errc::invalid_argument) return std::nullopt;
    if (parsed.ec == std::errc::result_out_of_range) value = lowered.find("e-") != std::string::npos ? 0 : HUGE_VAL;
  }
  return is_negative ? -value : value;
}

std::optional<Value> truncate_to_integer(double number, TextOrigin origin) {
  if (!std::isfinite(number)) return std::nullopt;
  if (std::abs(number) > 1.7e38) raise("an integer is too large");
  return Value(static_cast<Integer>(number)).with_origin(origin);
}

Value int_filter(Interpreter& run, const Value& subject, const Bound& bound, const Arguments&) {
  const Value fallback = bound[0].value_or(Value(0));
  if (subject.is_undefined()) raise_undefined(subject);
  if (const auto integer = as_integer(subject)) return Value(*integer).with_origin(subject.origin());
  if (subject.is_float()) {
    if (std::isinf(subject.floating())) raise("cannot convert float infinity to integer");
    return truncate_to_integer(subject.floating(), subject.origin()).value_or(fallback);
  }
  if (!subject.is_text()) return fallback;
  const int64_t base = bound[1] ? need_int64(*bound[1], "int: base") : 10;
  const bool known_base = base == 0 || (base >= 2 && base <= 36);
  if (known_base) {
    if (auto parsed = parse_integer(run, subject.text(), static_cast<int>(base))) return *parsed;
  }
  const auto number = parse_float(run, subject.text());
  return number ? truncate_to_integer(*number, subject.origin()).value_or(fallback) : fallback;
}

Value float_filter(Interpreter& run, const Value& subject, const Bound& bound, const Arguments&) {
  if (subject.is_undefined()) raise_undefined(subject);
  const auto number = subject.is_text() ? parse_float(run, subject.text()) : as_number(subject);
  return number ? Value(*number).with_origin(subject.origin()) : bound[0].value_or(Value(0.0));
}

Value abs_filter(Interpreter&, const Value& subject, const Bound&, const Arguments&) {
  if (subject.is_float()) return Value(std::abs(subject.floating())).with_origin(subject.origin());
  const Value integer = positive(subject);
  return integer.integer() < 0 ? negative(integer) : integer;
}

// Python's round(): exact in decimal, ties to even.
double round_decimal(double number, int64_t precision) {
  if (!std::isfinite(number) || precision > 300) return number;
  if (precision < -300) return 0 * number;
  if (precision < 0) {
    const double scale = std::pow(10.0, static_cast<double>(-precision));
    return std::nearbyint(number / scale) * scale;
  }
  return std::stod(fmt::format("{:.{}f}", number, precision));
}

Value round_filter(Interpreter&, const Value& subject, const Bound& bound, const Arguments&) {
  const int64_t precision = bound[0] ? need_int64(*bound[0], "round") : 0;
  const std::string method = bound[1] && bound[1]->is_text() ? std::string(bound[1]->text().bytes())
                             : bound[1]                      ? ""
                                                             : "common";
  if (method != "common" && method != "ceil" && method != "floor")
    raise("round: expected the method common, ceil or floor");
  if (subject.is_undefined()) raise_undefined(subject);
  const auto number = as_number(subject);
  if (!number) raise("round: expected a number, found {}", type_name(subject));
  const auto integer = as_integer(subject);
  if (method == "common" && integer && precision >= 0) return Value(*integer).with_origin(subject.origin());
  if (method == "common") {
    const double rounded = round_decimal(*number, precision);
    return integer ? *truncate_to_integer(rounded, subject.origin()) : Value(rounded).with_origin(subject.origin());
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = *number * scale;
  if (!std::isfinite(scaled) || scale == 0) raise("round: the number is too large");
  return Value((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale).with_origin(subject.origin());
}

Value default_filter(Interpreter&, const Value& subject, const Bound& bound, const Arguments&) {
  const bool replaces = subject.is_undefined() || (bound[1] && truthy(*bound[1]) && !truthy(subject));
  return replaces ? bound[0].value_or(Value(Text())) : subject;
}

Value length_filter(Interpreter&, const Value& subject, const Bound&, const Arguments&) {
  const auto count = length(subject);
  if (!count) raise("object of type '{}' has no len()", type_name(subject));
  return *count;
}

Value attr_filter(Interpreter& run, const Value& subject, const Bound& bound, const Arguments&) {
  const std::string_view name = need_text(*bound[0], "attr").bytes();
  if (!subject.object() || !as_dict(subject)) return run.get_attribute(subject, name);
  if (auto method = find_method(run, subject, name)) return *std::move(method);
  return Undefined{fmt::format("no attribute '{}'", name)};
}

}  // namespace

const std::vector<Filter>& number_filters() {
  static const std::vector<Filter> kRows = {
      {"abs", "", abs_filter},
      {"attr", "name", attr_filter},
      {"count", "", length_filter},
      {"d", "default_value=? boolean=?", default_filter},
      {"default", "default_value=? boolean=?", default_filter},
      {"float", "default=?", float_filter},
      {"int", "default=? base=?", int_filter},
      {"length", "", length_filter},
      {"round", "precision=? method=?", round_filter},
  };
  return kRows;
}

}  // namespace octet::jinja
