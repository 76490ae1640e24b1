#include "octet/text/jinja/value.h"

#include <cmath>

namespace octet::jinja {
namespace {

constexpr double kIntegerBound = 1.7e38;  // a little less than 2^127
constexpr int kMaxKeyDepth = 100;

std::string number_key(Integer value) { return fmt::format("n{}", value); }

std::string hash_key_at(const Value& value, int depth) {
  if (depth > kMaxKeyDepth) raise("a tuple used as a key is nested too deeply");
  switch (value.kind()) {
    case Value::Kind::kUndefined:
      return "u";
    case Value::Kind::kNone:
      return "0";
    case Value::Kind::kBool:
      return number_key(value.boolean() ? 1 : 0);
    case Value::Kind::kInteger:
      return number_key(value.integer());
    case Value::Kind::kFloat: {
      const double number = value.floating();
      if (std::floor(number) == number && std::abs(number) < kIntegerBound)
        return number_key(static_cast<Integer>(number));
      return fmt::format("f{}", number);
    }
    case Value::Kind::kText:
      return fmt::format("s{}", value.text().bytes());
    case Value::Kind::kObject:
      break;
  }
  if (const auto* tuple = value.as<Sequence>(); tuple && tuple->type == SequenceType::kTuple) {
    std::string key = "t";
    for (const Value& item : tuple->items) {
      const std::string part = hash_key_at(item, depth + 1);
      key += fmt::format("{}:{}", part.size(), part);
    }
    return key;
  }
  if (value.as<Callable>() || value.as<Iterator>()) return fmt::format("o{}", static_cast<const void*>(value.object()));
  if (const auto* range = value.as<Range>()) return fmt::format("r{},{},{}", range->begin, range->end, range->step);
  raise("unhashable type");
}

}  // namespace

std::string hash_key(const Value& value) { return hash_key_at(value, 0); }

Value Value::with_origin(TextOrigin origin) const {
  Value copy = *this;
  copy.origin_ = origin;
  return copy;
}

const Value* Dict::find(const Value& key) const {
  const auto found = index_.find(hash_key(key));
  return found == index_.end() ? nullptr : &items_[found->second].second;
}

const Value* Dict::find_text(std::string_view key) const {
  const auto found = index_.find(fmt::format("s{}", key));
  return found == index_.end() ? nullptr : &items_[found->second].second;
}

void Dict::set(const Value& key, Value value) {
  const auto [place, is_new] = index_.emplace(hash_key(key), items_.size());
  if (is_new) {
    items_.emplace_back(key, std::move(value));
  } else {
    items_[place->second].second = std::move(value);
  }
}

int64_t Range::length() const {
  if (step > 0) return begin < end ? (end - begin - 1) / step + 1 : 0;
  return begin > end ? (begin - end - 1) / -step + 1 : 0;
}

}  // namespace octet::jinja
