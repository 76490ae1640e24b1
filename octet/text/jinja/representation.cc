// str() and repr() of operations.h.
#include <charconv>
#include <cmath>

#include "octet/text/jinja/operations.h"
#include "octet/text/jinja/unicode.h"

namespace octet::jinja {
namespace {

class Writer {
 public:
  explicit Writer(Runtime& runtime) : runtime_(runtime) {}

  void write(const Value& value, int depth) {
    if (depth > kMaxValueDepth) raise("a value is nested too deeply");
    runtime_.spend(1);
    if (value.is_text()) return write_quoted(value.text());
    if (const auto* sequence = value.as<Sequence>()) {
      write_sequence(*sequence, value.origin(), depth);
    } else if (const auto* dict = value.as<Dict>()) {
      write_dict(*dict, value.origin(), depth);
    } else if (const auto* view = value.as<DictView>()) {
      static constexpr std::string_view kNames[] = {"dict_keys([", "dict_values([", "dict_items(["};
      put(kNames[static_cast<int>(view->part)], value.origin());
      write_items(to_vector(runtime_, value), value.origin(), depth);
      put("])", value.origin());
    } else if (const auto* space = value.as<Namespace>()) {
      put("<Namespace {", value.origin());
      for (const auto& [name, held] : space->attributes) {
        put(name, value.origin()), put(": ", value.origin());
        write(held, depth + 1);
      }
      put("}>", value.origin());
    } else {
      put(scalar(value), value.origin());
    }
  }

  Text build() { return out_.build(); }

  static std::string scalar(const Value& value) {
    switch (value.kind()) {
      case Value::Kind::kUndefined:
        return "Undefined";
      case Value::Kind::kNone:
        return "None";
      case Value::Kind::kBool:
        return value.boolean() ? "True" : "False";
      case Value::Kind::kInteger:
        return fmt::format("{}", value.integer());
      case Value::Kind::kFloat:
        return float_repr(value.floating());
      default:
        break;
    }
    if (const auto* range = value.as<Range>()) {
      if (range->step == 1) return fmt::format("range({}, {})", range->begin, range->end);
      return fmt::format("range({}, {}, {})", range->begin, range->end, range->step);
    }
    if (const auto* callable = value.as<Callable>())
      return fmt::format("<{} '{}'>", callable->type_name(), callable->name);
    return fmt::format("<{}>", type_name(value));
  }

 private:
  void put(std::string_view text, TextOrigin origin) {
    out_.append(text, origin);
    runtime_.reserve_text(out_.size() > charged_ + 4096 ? Integer(out_.size()) : Integer{0});
    if (out_.size() > charged_ + 4096) charged_ = out_.size() * 2;
  }

  void write_items(const std::vector<Value>& items, TextOrigin origin, int depth) {
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) put(", ", origin);
      write(items[i], depth + 1);
    }
  }

  void write_sequence(const Sequence& sequence, TextOrigin origin, int depth) {
    const bool list = sequence.type == SequenceType::kList;
    put(list ? "[" : "(", origin);
    write_items(sequence.items, origin, depth);
    put(list ? "]" : sequence.items.size() == 1 ? ",)" : ")", origin);
  }

  void write_dict(const Dict& dict, TextOrigin origin, int depth) {
    put("{", origin);
    bool first = true;
    for (const auto& [key, held] : dict.items()) {
      if (!first) put(", ", origin);
      first = false;
      write(key, depth + 1);
      put(": ", origin);
      write(held, depth + 1);
    }
    put("}", origin);
  }

  // Single quotes unless the text has some and no double ones.
  void write_quoted(const Text& text) {
    const std::string_view bytes = text.bytes();
    runtime_.reserve_text(Integer(bytes.size()) + Integer(out_.size() / 16));
    const char quote =
        bytes.find('\'') != std::string_view::npos && bytes.find('"') == std::string_view::npos ? '"' : '\'';
    const std::string_view mark(&quote, 1);
    put(mark, bytes.empty() ? TextOrigin::kTrusted : text.origin_at(0));
    for (size_t at = 0; at < bytes.size();) {
      const size_t begin = at;
      const char32_t c = next_code_point(bytes, at);
      const TextOrigin origin = text.origin_at(begin);
      if (c == static_cast<unsigned char>(quote) || c == '\\') {
        out_.append("\\", origin);
        out_.append(c, origin);
      } else if (c == '\n' || c == '\r' || c == '\t') {
        out_.append(c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t", origin);
      } else if (is_printable(c)) {
        out_.append(text, begin, at);
      } else {
        const auto code = static_cast<uint32_t>(c);
        out_.append(code < 0x100     ? fmt::format("\\x{:02x}", code)
                    : code < 0x10000 ? fmt::format("\\u{:04x}", code)
                                     : fmt::format("\\U{:08x}", code),
                    origin);
      }
    }
    put(mark, bytes.empty() ? TextOrigin::kTrusted : text.origin_at(bytes.size() - 1));
  }

  Runtime& runtime_;
  TextBuilder out_;
  size_t charged_ = 0;
};

}  // namespace

std::string float_repr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  const std::string_view shortest(buffer, static_cast<size_t>(end - buffer));  // "-1.25e+02"
  const size_t e = shortest.find('e');
  const int exponent = std::stoi(std::string(shortest.substr(e + 1)));
  std::string digits(shortest.substr(0, e));
  const bool is_negative = digits[0] == '-';
  std::erase_if(digits, [](char c) { return c == '.' || c == '-'; });
  const auto count = static_cast<int>(digits.size());
  std::string text;
  if (exponent < -4 || exponent >= 16) {
    text = digits.substr(0, 1) + (count > 1 ? "." + digits.substr(1) : "") +
           fmt::format("e{}{:02}", exponent < 0 ? '-' : '+', std::abs(exponent));
  } else if (exponent < 0) {
    text = "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  } else if (count <= exponent + 1) {
    text = digits + std::string(static_cast<size_t>(exponent + 1 - count), '0') + ".0";
  } else {
    text = digits.substr(0, static_cast<size_t>(exponent + 1)) + "." + digits.substr(static_cast<size_t>(exponent + 1));
  }
  return is_negative ? "-" + text : text;
}

Text repr(Runtime& runtime, const Value& value) {
  Writer writer(runtime);
  writer.write(value, 0);
  return writer.build();
}

Text to_text(Runtime& runtime, const Value& value) {
  if (value.is_text()) return value.text();
  if (value.is_undefined()) return Text();
  if (!value.object()) return Text(Writer::scalar(value), value.origin());
  return repr(runtime, value);
}

}  // namespace octet::jinja
