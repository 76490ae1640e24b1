#include "octet/text/jinja/operations.h"

#include <cmath>

#include "octet/text/jinja/format.h"

namespace octet::jinja {
namespace {

void check_depth(int depth) {
  if (depth > kMaxValueDepth) raise("a value is nested too deeply");
}

bool equal_at(Runtime& runtime, const Value& a, const Value& b, int depth);

bool equal_items(Runtime& runtime, const std::vector<Value>& a, const std::vector<Value>& b, int depth) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!equal_at(runtime, a[i], b[i], depth + 1)) return false;
  }
  return true;
}

bool equal_dicts(Runtime& runtime, const Dict& a, const Dict& b, int depth) {
  if (a.items().size() != b.items().size()) return false;
  for (const auto& [key, value] : a.items()) {
    const Value* other = b.find(key);
    if (!other || !equal_at(runtime, value, *other, depth + 1)) return false;
  }
  return true;
}

bool equal_at(Runtime& runtime, const Value& a, const Value& b, int depth) {
  check_depth(depth);
  runtime.spend(1);
  const auto x = as_integer(a), y = as_integer(b);
  if (x && y) return *x == *y;
  if (const auto p = as_number(a), q = as_number(b); p && q) return *p == *q;
  if (a.is_text() && b.is_text()) {
    runtime.spend_bytes(std::min(a.text().bytes().size(), b.text().bytes().size()));
    return a.text() == b.text();
  }
  if (a.kind() != b.kind()) return false;
  if (a.is_undefined() || a.is_none()) return true;
  if (a.object() == b.object()) return true;
  const auto *s = a.as<Sequence>(), *t = b.as<Sequence>();
  if (s && t) return s->type == t->type && equal_items(runtime, s->items, t->items, depth);
  const auto *d = a.as<Dict>(), *e = b.as<Dict>();
  if (d && e) return equal_dicts(runtime, *d, *e, depth);
  const auto *r = a.as<Range>(), *q = b.as<Range>();
  if (r && q) return hash_key(a) == hash_key(b);
  return false;
}

std::optional<int> order_at(Runtime& runtime, const Value& a, const Value& b, int depth) {
  check_depth(depth);
  runtime.spend(1);
  const auto x = as_integer(a), y = as_integer(b);
  if (x && y) return *x < *y ? -1 : *x > *y;
  if (const auto p = as_number(a), q = as_number(b); p && q) {
    if (std::isnan(*p) || std::isnan(*q)) return std::nullopt;
    return *p < *q ? -1 : *p > *q;
  }
  if (a.is_text() && b.is_text()) {  // UTF-8 sorts as code points do
    runtime.spend_bytes(std::min(a.text().bytes().size(), b.text().bytes().size()));
    const int result = a.text().bytes().compare(b.text().bytes());
    return result < 0 ? -1 : result > 0;
  }
  const auto *s = a.as<Sequence>(), *t = b.as<Sequence>();
  if (s && t && s->type == t->type) {
    for (size_t i = 0; i < std::min(s->items.size(), t->items.size()); ++i) {
      if (!equal_at(runtime, s->items[i], t->items[i], depth + 1))
        return order_at(runtime, s->items[i], t->items[i], depth + 1);
    }
    return s->items.size() < t->items.size() ? -1 : s->items.size() > t->items.size();
  }
  if (a.is_undefined()) raise_undefined(a);
  if (b.is_undefined()) raise_undefined(b);
  raise("'{}' and '{}' have no order", type_name(a), type_name(b));
}

}  // namespace

std::string type_name(const Value& value) {
  switch (value.kind()) {
    case Value::Kind::kUndefined:
      return "Undefined";
    case Value::Kind::kNone:
      return "NoneType";
    case Value::Kind::kBool:
      return "bool";
    case Value::Kind::kInteger:
      return "int";
    case Value::Kind::kFloat:
      return "float";
    case Value::Kind::kText:
      return "str";
    case Value::Kind::kObject:
      break;
  }
  switch (value.object()->kind()) {
    case ObjectKind::kSequence:
      return value.as<Sequence>()->type == SequenceType::kList ? "list" : "tuple";
    case ObjectKind::kDict:
      return "dict";
    case ObjectKind::kDictView:
      return "dict view";
    case ObjectKind::kRange:
      return "range";
    case ObjectKind::kIterator:
      return "generator";
    case ObjectKind::kNamespace:
      return "Namespace";
    case ObjectKind::kCallable:
      return value.as<Callable>()->type_name();
    case ObjectKind::kScope:
      break;
  }
  return "object";
}

void raise_undefined(const Value& value) {
  const std::string& hint = value.undefined().hint;
  raise("{}", hint.empty() ? "a value is undefined" : hint);
}

bool truthy(const Value& value) {
  switch (value.kind()) {
    case Value::Kind::kUndefined:
    case Value::Kind::kNone:
      return false;
    case Value::Kind::kBool:
      return value.boolean();
    case Value::Kind::kInteger:
      return value.integer() != 0;
    case Value::Kind::kFloat:
      return value.floating() != 0;
    case Value::Kind::kText:
      return !value.text().empty();
    case Value::Kind::kObject:
      break;
  }
  const auto count = length(value);
  return !count || *count > 0;
}

bool equal(Runtime& runtime, const Value& a, const Value& b) { return equal_at(runtime, a, b, 0); }

bool identical(const Value& a, const Value& b) {
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Value::Kind::kNone:
      return true;
    case Value::Kind::kBool:
      return a.boolean() == b.boolean();
    case Value::Kind::kInteger:
      return a.integer() == b.integer();
    case Value::Kind::kFloat:
      return a.floating() == b.floating();
    case Value::Kind::kText:
      return a.text() == b.text();
    case Value::Kind::kObject:
      return a.object() == b.object();
    case Value::Kind::kUndefined:
      return false;
  }
  return false;
}

std::optional<int> order(Runtime& runtime, const Value& a, const Value& b) { return order_at(runtime, a, b, 0); }

bool less(Runtime& runtime, const Value& a, const Value& b) {
  const auto result = order(runtime, a, b);
  return result && *result < 0;
}

std::optional<Integer> as_integer(const Value& value) {
  if (value.is_bool()) return value.boolean() ? 1 : 0;
  if (value.is_integer()) return value.integer();
  return std::nullopt;
}

std::optional<double> as_number(const Value& value) {
  if (value.is_float()) return value.floating();
  if (const auto integer = as_integer(value)) return static_cast<double>(*integer);
  return std::nullopt;
}

Integer need_integer(const Value& value, std::string_view what) {
  if (const auto integer = as_integer(value)) return *integer;
  if (value.is_undefined()) raise_undefined(value);
  raise("{}: expected an integer, found {}", what, type_name(value));
}

int64_t need_int64(const Value& value, std::string_view what) {
  const Integer integer = need_integer(value, what);
  if (integer > INT64_MAX || integer < INT64_MIN) raise("{}: the integer is too large", what);
  return static_cast<int64_t>(integer);
}

const Text& need_text(const Value& value, std::string_view what) {
  if (!value.is_text()) raise("{}: expected a str, found {}", what, type_name(value));
  return value.text();
}

const Dict* as_dict(const Value& value) { return value.as<Dict>(); }

bool compare(Runtime& runtime, CompareOp op, const Value& a, const Value& b) {
  if (op == CompareOp::kEqual) return equal(runtime, a, b);
  if (op == CompareOp::kNotEqual) return !equal(runtime, a, b);
  if (op == CompareOp::kIn) return contains(runtime, b, a);
  if (op == CompareOp::kNotIn) return !contains(runtime, b, a);
  const auto result = order(runtime, a, b);
  if (!result) return false;
  switch (op) {
    case CompareOp::kLess:
      return *result < 0;
    case CompareOp::kLessEqual:
      return *result <= 0;
    case CompareOp::kGreater:
      return *result > 0;
    default:
      return *result >= 0;
  }
}

bool contains(Runtime& runtime, const Value& container, const Value& item) {
  if (container.is_text()) {
    if (!item.is_text()) raise("'in <str>' needs a str on its left, found {}", type_name(item));
    runtime.spend_bytes(container.text().bytes().size());
    return container.text().bytes().find(item.text().bytes()) != std::string_view::npos;
  }
  if (const Dict* dict = as_dict(container)) return dict->find(item) != nullptr;
  const auto next = iterate(runtime, container);
  while (const auto element = next()) {
    if (equal(runtime, *element, item)) return true;
  }
  return false;
}

Text escape_html(const Value& value, const Text& text) {
  if (value.is_text() && text.is_markup()) return text;
  TextBuilder out;
  const std::string_view bytes = text.bytes();
  for (size_t at = 0; at < bytes.size();) {
    const size_t length_of = sequence_length(bytes[at]);
    const TextOrigin origin = text.origin_at(at);
    switch (bytes[at]) {
      case '&':
        out.append("&amp;", origin);
        break;
      case '<':
        out.append("&lt;", origin);
        break;
      case '>':
        out.append("&gt;", origin);
        break;
      case '"':
        out.append("&#34;", origin);
        break;
      case '\'':
        out.append("&#39;", origin);
        break;
      default:
        out.append(bytes.substr(at, length_of), origin);
    }
    at += length_of;
  }
  return out.build().as_markup(true);
}

}  // namespace octet::jinja
