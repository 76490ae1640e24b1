// json.dumps of format.h.
#include <algorithm>
#include <cmath>

#include "octet/text/jinja/format.h"
#include "octet/text/jinja/operations.h"

namespace octet::jinja {
namespace {

class JsonWriter {
 public:
  JsonWriter(Runtime& runtime, const JsonStyle& style) : runtime_(runtime), style_(style) {}

  void write(const Value& value, int depth) {
    if (depth > kMaxValueDepth) raise("tojson: the value is nested too deeply");
    runtime_.spend(1);
    runtime_.reserve_text(Integer(out_.size()) - Integer(charged_));
    charged_ = std::max(charged_, out_.size());
    if (value.is_text()) return write_text(value.text());
    if (const auto* sequence = value.as<Sequence>()) return write_sequence(*sequence, value.origin(), depth);
    if (const auto* dict = value.as<Dict>()) return write_dict(*dict, value.origin(), depth);
    if (value.is_undefined() || value.object()) raise("Object of type {} is not JSON serializable", type_name(value));
    out_.append(scalar(value), value.origin());
  }

  Text build() { return out_.build(); }

 private:
  static std::string scalar(const Value& value) {
    if (value.is_none()) return "null";
    if (value.is_bool()) return value.boolean() ? "true" : "false";
    if (value.is_integer()) return fmt::format("{}", value.integer());
    const double number = value.floating();
    if (std::isnan(number)) return "NaN";
    if (std::isinf(number)) return number < 0 ? "-Infinity" : "Infinity";
    return float_repr(number);
  }

  void new_line(TextOrigin origin, int depth) {
    if (!style_.indent) return;
    runtime_.reserve_text(Integer(out_.size()) - Integer(charged_) + Integer(style_.indent->size()) * depth);
    out_.append("\n", origin);
    for (int i = 0; i < depth; ++i) out_.append(*style_.indent, origin);
  }

  void write_sequence(const Sequence& sequence, TextOrigin origin, int depth) {
    if (sequence.items.empty()) {
      out_.append("[]", origin);
      return;
    }
    out_.append("[", origin);
    for (size_t i = 0; i < sequence.items.size(); ++i) {
      if (i > 0) out_.append(style_.item_separator, origin);
      new_line(origin, depth + 1);
      write(sequence.items[i], depth + 1);
    }
    new_line(origin, depth);
    out_.append("]", origin);
  }

  void write_dict(const Dict& dict, TextOrigin origin, int depth) {
    if (dict.items().empty()) {
      out_.append("{}", origin);
      return;
    }
    auto items = dict.items();
    if (style_.sort_keys) {
      std::stable_sort(items.begin(), items.end(),
                       [&](const auto& a, const auto& b) { return less(runtime_, a.first, b.first); });
    }
    out_.append("{", origin);
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_.append(style_.item_separator, origin);
      new_line(origin, depth + 1);
      write_key(items[i].first, origin);
      out_.append(style_.key_separator, origin);
      write(items[i].second, depth + 1);
    }
    new_line(origin, depth);
    out_.append("}", origin);
  }

  void write_key(const Value& key, TextOrigin origin) {
    if (key.is_text()) return write_text(key.text());
    if (key.is_undefined() || key.object()) raise("keys must be str, int, float, bool or None, not {}", type_name(key));
    out_.append("\"", origin).append(scalar(key), combine(origin, key.origin())).append("\"", origin);
  }

  void write_text(const Text& text) {
    const std::string_view bytes = text.bytes();
    out_.append("\"", bytes.empty() ? TextOrigin::kTrusted : text.origin_at(0));
    size_t plain = 0;  // start of what needs no escape
    for (size_t at = 0; at < bytes.size();) {
      const size_t begin = at;
      const char32_t c = next_code_point(bytes, at);
      const bool needs_escape = c < 0x20 || c == '"' || c == '\\' || (style_.ensure_ascii && c > 0x7e);
      if (!needs_escape) continue;
      out_.append(text, plain, begin);
      out_.append(escaped(c), text.origin_at(begin));
      plain = at;
    }
    out_.append(text, plain, bytes.size());
    out_.append("\"", bytes.empty() ? TextOrigin::kTrusted : text.origin_at(bytes.size() - 1));
  }

  static std::string escaped(char32_t c) {
    switch (c) {
      case '"':
        return "\\\"";
      case '\\':
        return "\\\\";
      case '\n':
        return "\\n";
      case '\r':
        return "\\r";
      case '\t':
        return "\\t";
      case '\f':
        return "\\f";
      case '\b':
        return "\\b";
      default:
        break;
    }
    const auto code = static_cast<uint32_t>(c);
    if (code < 0x10000) return fmt::format("\\u{:04x}", code);
    return fmt::format("\\u{:04x}\\u{:04x}", 0xd800 + ((code - 0x10000) >> 10), 0xdc00 + ((code - 0x10000) & 0x3ff));
  }

  Runtime& runtime_;
  const JsonStyle& style_;
  TextBuilder out_;
  size_t charged_ = 0;
};

}  // namespace

Text dump_json(Runtime& runtime, const Value& value, const JsonStyle& style) {
  JsonWriter writer(runtime, style);
  writer.write(value, 0);
  return writer.build();
}

}  // namespace octet::jinja
