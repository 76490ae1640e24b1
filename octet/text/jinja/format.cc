#include "octet/text/jinja/format.h"

#include <algorithm>
#include <cmath>

#include "octet/text/jinja/interpreter.h"
#include "octet/text/jinja/operations.h"
#include "octet/text/jinja/text_operations.h"

namespace octet::jinja {
namespace {

constexpr int64_t kMaxWidth = 1'000'000;
constexpr int64_t kMaxPrecision = 500;

// [[fill]align][sign][#][0][width][,][.precision][type], from both mini-languages.
struct Specification {
  Text fill = Text::trusted(" ");
  char align = '\0';  // < > ^ =, or none given
  char sign = '-';
  bool alternate = false;
  char grouping = '\0';
  int64_t width = 0;
  int64_t precision = -1;
  char type = '\0';
};

std::string with_grouping(std::string digits, char separator) {
  size_t end = std::min(digits.find_first_not_of("0123456789"), digits.size());
  for (; end > 3; end -= 3) digits.insert(end - 3, 1, separator);
  return digits;
}

std::string integer_digits(Integer value, const Specification& spec) {
  const int base = spec.type == 'x' || spec.type == 'X' ? 16 : spec.type == 'o' ? 8 : spec.type == 'b' ? 2 : 10;
  std::string digits = format_integer(value, base);
  if (digits[0] == '-') digits.erase(0, 1);
  if (spec.type == 'X')
    std::transform(digits.begin(), digits.end(), digits.begin(),
                   [](char c) { return static_cast<char>(std::toupper(c)); });
  if (spec.alternate && base != 10) digits = std::string("0") + spec.type + digits;
  return digits;
}

std::string float_digits(double magnitude, const Specification& spec) {
  if (!std::isfinite(magnitude)) return std::isnan(magnitude) ? "nan" : "inf";
  const int64_t precision = spec.precision < 0 ? 6 : spec.precision;
  switch (spec.type) {
    case 'f':
    case 'F':
      return fmt::format("{:.{}f}", magnitude, precision);
    case '%':
      return fmt::format("{:.{}f}%", magnitude * 100, precision);
    case 'e':
    case 'E': {
      const std::string text = fmt::format("{:.{}e}", magnitude, precision);
      return spec.type == 'e' ? text : fmt::format("{:.{}E}", magnitude, precision);
    }
    case 'g':
    case 'G':
      return fmt::format("{:.{}g}", magnitude, std::max<int64_t>(precision, 1));
    default:
      break;
  }
  if (spec.precision < 0) return float_repr(magnitude);
  const std::string text = fmt::format("{:.{}g}", magnitude, std::max<int64_t>(precision, 1));
  const bool plain = text.find_first_of(".e") == std::string::npos;
  return plain ? text + ".0" : text;
}

// Sign, digits and padding of a number.
Text number_field(Runtime& runtime, const Value& value, const Specification& spec) {
  const auto integer = as_integer(value);
  const bool as_float = value.is_float() || std::string_view("fFeEgG%").find(spec.type) != std::string_view::npos;
  const bool is_negative = integer ? *integer < 0 : std::signbit(value.floating());
  std::string digits = as_float && spec.type != '\0' ? float_digits(std::abs(*as_number(value)), spec)
                       : value.is_float()            ? float_digits(std::abs(value.floating()), spec)
                                                     : integer_digits(*integer, spec);
  if (spec.grouping != '\0') digits = with_grouping(std::move(digits), spec.grouping);
  const std::string sign = is_negative ? "-" : spec.sign == '-' ? "" : std::string(1, spec.sign);
  if (spec.align == '=') {
    const Text padded = pad(runtime, Text(digits, value.origin()), spec.width - static_cast<int64_t>(sign.size()),
                            Side::kLeft, spec.fill);
    return TextBuilder().append(sign, value.origin()).append(padded).build();
  }
  const Side side = spec.align == '<' ? Side::kRight : spec.align == '^' ? Side::kBoth : Side::kLeft;
  return pad(runtime, Text(sign + digits, value.origin()), spec.width, side, spec.fill);
}

Text text_field(Runtime& runtime, const Text& text, const Specification& spec) {
  const Text cut =
      spec.precision >= 0 && spec.precision < text.length() ? text.slice_bytes(0, text.byte_of(spec.precision)) : text;
  if (cut.length() >= spec.width) return cut;
  const int64_t missing = spec.width - cut.length();
  if (spec.align == '^') {  // format() puts the odd one on the right
    const Text left = pad(runtime, cut, cut.length() + missing / 2, Side::kLeft, spec.fill);
    return pad(runtime, left, spec.width, Side::kRight, spec.fill);
  }
  return pad(runtime, cut, spec.width, spec.align == '>' ? Side::kLeft : Side::kRight, spec.fill);
}

int64_t take_number(std::string_view text, size_t& at, int64_t limit) {
  int64_t number = 0;
  for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at) {
    number = number * 10 + (text[at] - '0');
    if (number > limit) raise("a format's width or precision is too large");
  }
  return number;
}

Specification parse_specification(const Text& text) {
  Specification spec;
  const std::string_view bytes = text.bytes();
  size_t at = 0;
  const auto is_align = [&](size_t i) {
    return i < bytes.size() && std::string_view("<>^=").find(bytes[i]) != std::string_view::npos;
  };
  const size_t second = bytes.empty() ? 0 : sequence_length(bytes[0]);
  if (!bytes.empty() && is_align(second)) {
    spec.fill = text.slice_bytes(0, second);
    spec.align = bytes[second];
    at = second + 1;
  } else if (is_align(0)) {
    spec.align = bytes[at++];
  }
  const auto take = [&](std::string_view any) {
    return at < bytes.size() && any.find(bytes[at]) != std::string_view::npos ? bytes[at++] : '\0';
  };
  if (const char sign = take("+- ")) spec.sign = sign;
  spec.alternate = take("#") != '\0';
  if (at < bytes.size() && bytes[at] == '0') {
    ++at;
    if (spec.align == '\0') spec.align = '=', spec.fill = Text::trusted("0");
  }
  spec.width = take_number(bytes, at, kMaxWidth);
  spec.grouping = take(",_");
  if (take(".") != '\0') {
    if (at >= bytes.size() || bytes[at] < '0' || bytes[at] > '9') raise("Format specifier missing precision");
    spec.precision = take_number(bytes, at, kMaxPrecision);
  }
  spec.type = take("bcdeEfFgGnosxX%");
  if (at != bytes.size()) raise("Invalid format specifier '{}'", bytes);
  return spec;
}

Text format_value(Runtime& runtime, const Value& value, const Text& specification) {
  if (specification.empty()) return to_text(runtime, value);
  const Specification spec = parse_specification(specification);
  const bool is_number = as_number(value).has_value() && !(value.is_bool() && spec.type == '\0');
  if (is_number) {
    const bool integer_type =
        spec.type != '\0' && std::string_view("bcdnoxX").find(spec.type) != std::string_view::npos;
    if (spec.type == 's' || spec.type == 'c' || spec.type == 'n' || (value.is_float() && integer_type))
      raise("Unknown format code '{}'", spec.type);
    if (!value.is_float() && spec.precision >= 0 && (spec.type == '\0' || integer_type))
      raise("Precision not allowed in integer format specifier");
    return number_field(runtime, value, spec);
  }
  if (!value.is_text() && !value.is_bool())
    raise("unsupported format string passed to {}.__format__", type_name(value));
  if ((spec.type != '\0' && spec.type != 's') || spec.align == '=') raise("Unknown format code for a str");
  return text_field(runtime, to_text(runtime, value), spec);
}

class BraceFormatter {
 public:
  BraceFormatter(Interpreter& run, const Arguments& arguments) : run_(run), arguments_(arguments) {}

  Text format(const Text& text, int depth) {
    if (depth > 2) raise("Max string recursion exceeded");
    const std::string_view bytes = text.bytes();
    TextBuilder out;
    for (size_t at = 0; at < bytes.size();) {
      const size_t brace = std::min(bytes.find_first_of("{}", at), bytes.size());
      out.append(text, at, brace);
      at = brace;
      if (at == bytes.size()) break;
      if (at + 1 < bytes.size() && bytes[at + 1] == bytes[at]) {
        out.append(text, at, at + 1);
        at += 2;
        continue;
      }
      if (bytes[at] == '}') raise("Single '}}' encountered in format string");
      const size_t end = field_end(bytes, at + 1);
      const Text field = replacement(text.slice_bytes(at + 1, end), depth);
      run_.reserve_text(Integer(out.size() + field.bytes().size()));
      out.append(field);
      at = end + 1;
    }
    return out.build();
  }

 private:
  static size_t field_end(std::string_view bytes, size_t at) {
    for (int open = 1; at < bytes.size(); ++at) {
      open += bytes[at] == '{' ? 1 : bytes[at] == '}' ? -1 : 0;
      if (open == 0) return at;
    }
    raise("expected '}}' before end of string");
  }

  Text replacement(const Text& field, int depth) {
    const std::string_view bytes = field.bytes();
    const size_t name_end = std::min(bytes.find_first_of("!:"), bytes.size());
    Value value = look_up(field.slice_bytes(0, name_end));
    size_t at = name_end;
    if (at < bytes.size() && bytes[at] == '!') {
      const char conversion = at + 1 < bytes.size() ? bytes[at + 1] : '\0';
      if (conversion != 'r' && conversion != 's') raise("Unknown conversion specifier");
      value = conversion == 'r' ? repr(run_, value) : to_text(run_, value);
      at += 2;
    }
    if (at < bytes.size() && bytes[at] != ':') raise("expected ':' after conversion specifier");
    const Text specification = at < bytes.size() ? format(field.slice_bytes(at + 1, bytes.size()), depth + 1) : Text();
    return format_value(run_, value, specification);
  }

  Value look_up(const Text& path) {
    const std::string_view bytes = path.bytes();
    size_t at = std::min(bytes.find_first_of(".["), bytes.size());
    Value value = first(bytes.substr(0, at));
    while (at < bytes.size()) {
      if (bytes[at] == '.') {
        const size_t end = std::min(bytes.find_first_of(".[", at + 1), bytes.size());
        if (value.object() && as_dict(value))
          raise("'dict' object has no attribute '{}'", bytes.substr(at + 1, end - at - 1));
        value = run_.get_attribute(value, bytes.substr(at + 1, end - at - 1));
        at = end;
      } else {
        const size_t end = bytes.find(']', at);
        if (bytes[at] != '[' || end == std::string_view::npos) raise("Missing ']' in format string");
        const std::string_view key = bytes.substr(at + 1, end - at - 1);
        const bool digits =
            !key.empty() && key.size() < 18 && key.find_first_not_of("0123456789") == std::string_view::npos;
        const auto found =
            subscript(run_, value, digits ? Value(static_cast<int64_t>(std::stoll(std::string(key)))) : trusted(key));
        if (!found) raise("no element '{}' in format", key);
        value = *found;
        at = end + 1;
      }
      if (value.is_undefined()) raise_undefined(value);
    }
    return value;
  }

  Value first(std::string_view name) {
    size_t at = 0;
    if (name.empty()) {
      if (numbered_) raise("cannot switch from manual field specification to automatic field numbering");
      return positional(next_++);
    }
    const int64_t index = take_number(name, at, kMaxWidth);
    if (at == name.size()) {
      if (next_ > 0) raise("cannot switch from automatic field numbering to manual field specification");
      numbered_ = true;
      return positional(static_cast<size_t>(index));
    }
    for (const auto& [given, value] : arguments_.named) {
      if (given == name) return value;
    }
    raise("no argument '{}' for format", name);
  }

  Value positional(size_t index) const {
    if (index >= arguments_.positional.size())
      raise("Replacement index {} out of range for positional args tuple", index);
    return arguments_.positional[index];
  }

  Interpreter& run_;
  const Arguments& arguments_;
  size_t next_ = 0;
  bool numbered_ = false;
};

class PercentFormatter {
 public:
  PercentFormatter(Runtime& runtime, const Value& arguments) : runtime_(runtime), arguments_(arguments) {
    const auto* tuple = arguments.as<Sequence>();
    if (tuple && tuple->type == SequenceType::kTuple) tuple_ = tuple;
  }

  Text format(const Text& text) {
    const std::string_view bytes = text.bytes();
    TextBuilder out;
    for (size_t at = 0; at < bytes.size();) {
      const size_t percent = std::min(bytes.find('%', at), bytes.size());
      out.append(text, at, percent);
      at = percent;
      if (at == bytes.size()) break;
      if (++at == bytes.size()) raise("incomplete format");
      if (bytes[at] == '%') {
        out.append(text, at, at + 1);
        ++at;
        continue;
      }
      const Text field = conversion(bytes, at);
      runtime_.reserve_text(Integer(out.size() + field.bytes().size()));
      out.append(field);
    }
    const size_t given = tuple_ ? tuple_->items.size() : arguments_.as<Dict>() || arguments_.as<Sequence>() ? used_ : 1;
    if (used_ < given) raise("not all arguments converted during string formatting");
    return out.build();
  }

 private:
  Value next_argument() {
    if (!tuple_ && used_ == 0) return ++used_, arguments_;
    if (!tuple_ || used_ >= tuple_->items.size()) raise("not enough arguments for format string");
    return tuple_->items[used_++];
  }

  Value named_argument(std::string_view bytes, size_t& at) {
    const Dict* dict = as_dict(arguments_);
    const size_t end = bytes.find(')', at);
    if (!dict || end == std::string_view::npos) raise("format requires a mapping");
    const Value* found = dict->find_text(bytes.substr(at + 1, end - at - 1));
    if (!found) raise("format: no value for '{}'", bytes.substr(at + 1, end - at - 1));
    at = end + 1;
    return *found;
  }

  Text conversion(std::string_view bytes, size_t& at) {
    std::optional<Value> value;
    if (bytes[at] == '(') value = named_argument(bytes, at);
    Specification spec;
    spec.align = '>';
    bool zero = false, left = false;
    for (; at < bytes.size() && std::string_view("#0- +").find(bytes[at]) != std::string_view::npos; ++at) {
      spec.alternate |= bytes[at] == '#';
      zero |= bytes[at] == '0';
      left |= bytes[at] == '-';
      if (bytes[at] == '+' || (bytes[at] == ' ' && spec.sign != '+')) spec.sign = bytes[at];
    }
    spec.width = number_or_star(bytes, at, kMaxWidth);
    if (at < bytes.size() && bytes[at] == '.') spec.precision = number_or_star(bytes, ++at, kMaxPrecision);
    if (at >= bytes.size()) raise("incomplete format");
    spec.type = bytes[at++];
    if (!value) value = next_argument();
    if (left) spec.align = '<';
    if (zero && !left) spec.align = '=', spec.fill = Text::trusted("0");
    return apply(*value, spec);
  }

  int64_t number_or_star(std::string_view bytes, size_t& at, int64_t limit) {
    if (at >= bytes.size() || bytes[at] != '*') return take_number(bytes, at, limit);
    ++at;
    const int64_t number = need_int64(next_argument(), "* in a format");
    if (number > limit || number < 0) raise("a format's width or precision is out of range");
    return number;
  }

  Text apply(const Value& value, Specification spec) {
    if (spec.type == 's' || spec.type == 'r') {
      if (spec.align == '=') spec.align = '>', spec.fill = Text::trusted(" ");
      return text_field(runtime_, spec.type == 's' ? to_text(runtime_, value) : repr(runtime_, value), spec);
    }
    if (spec.type == 'c') {
      if (value.is_text() && value.text().length() == 1) return text_field(runtime_, value.text(), spec);
      const Integer code = need_integer(value, "%c format");
      if (code < 0 || code > 0x10ffff) raise("%c arg not in range(0x110000)");
      return text_field(runtime_, TextBuilder().append(static_cast<char32_t>(code), value.origin()).build(), spec);
    }
    if (spec.type == 'd' || spec.type == 'i' || spec.type == 'u' || spec.type == 'x' || spec.type == 'X' ||
        spec.type == 'o') {
      if (std::string_view("xXo").find(spec.type) == std::string_view::npos) spec.type = 'd';
      Value integer = value;
      if (value.is_float() && spec.type == 'd') {
        if (!std::isfinite(value.floating()) || std::abs(value.floating()) > 1e38) raise("a number is too large");
        integer = Value(static_cast<Integer>(value.floating())).with_origin(value.origin());
      }
      return number_field(runtime_, Value(need_integer(integer, "%d format")).with_origin(value.origin()), spec);
    }
    if (std::string_view("eEfFgG").find(spec.type) == std::string_view::npos)
      raise("unsupported format character '{}'", spec.type);
    if (!as_number(value)) raise("must be real number, not {}", type_name(value));
    return number_field(runtime_, value, spec);
  }

  Runtime& runtime_;
  const Value& arguments_;
  const Sequence* tuple_ = nullptr;
  size_t used_ = 0;
};

}  // namespace

std::string format_integer(Integer value, int base) {
  if (value == 0) return "0";
  const bool is_negative = value < 0;
  auto rest = is_negative ? -static_cast<UnsignedInteger>(value) : static_cast<UnsignedInteger>(value);
  std::string digits;
  for (; rest > 0; rest /= static_cast<unsigned>(base))
    digits.push_back("0123456789abcdef"[static_cast<size_t>(rest % static_cast<unsigned>(base))]);
  if (is_negative) digits.push_back('-');
  std::reverse(digits.begin(), digits.end());
  return digits;
}

Text format_percent(Runtime& runtime, const Text& format, const Value& arguments) {
  return PercentFormatter(runtime, arguments).format(format);
}

Text format_braces(Interpreter& interpreter, const Text& format, const Arguments& arguments) {
  return BraceFormatter(interpreter, arguments).format(format, 0);
}

}  // namespace octet::jinja
