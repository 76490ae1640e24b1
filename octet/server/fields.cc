#include "octet/server/fields.h"

#include <cmath>

namespace octet {

std::string described(const Json& value) {
  const std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  constexpr size_t kShown = 60;
  return fmt::format("{} {}", value.type_name(), shortened(text, kShown));
}

int64_t whole_number(const Json& value, const std::string& path, int64_t low, int64_t high) {
  bool whole = value.is_number_integer();
  double real = 0;
  if (value.is_number_float()) {
    real = value.get<double>();
    whole = std::floor(real) == real && std::abs(real) < 9e15;
  }
  if (!whole) fail_field(path, "must be an integer, was {}", described(value));
  const bool too_large = value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{INT64_MAX};
  const int64_t found = value.is_number_float() ? static_cast<int64_t>(real) : value.get<int64_t>();
  if (too_large || found < low || found > high) {
    fail_field(path, "must be between {} and {}, was {}", low, high, shortened(value.dump(), 40));
  }
  return found;
}

Fields::Fields(const Json& object, std::string path) : object_(object), path_(std::move(path)) {
  if (!object.is_object()) fail_field(path_, "must be an object, was {}", described(object));
}

std::string Fields::path_of(std::string_view key) const {
  return path_.empty() ? std::string(key) : path_ + "." + std::string(key);
}

const Json* Fields::raw(std::string_view key) {
  asked_.emplace(key);
  const auto found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

std::optional<bool> Fields::boolean(std::string_view key) {
  const Json* value = raw(key);
  if (!value) return std::nullopt;
  if (!value->is_boolean()) fail_field(path_of(key), "must be true or false, was {}", described(*value));
  return value->get<bool>();
}

std::optional<int64_t> Fields::integer(std::string_view key, int64_t low, int64_t high) {
  const Json* value = raw(key);
  if (!value) return std::nullopt;
  return whole_number(*value, path_of(key), low, high);
}

std::optional<double> Fields::number(std::string_view key, double low, double high) {
  const Json* value = raw(key);
  if (!value) return std::nullopt;
  if (!value->is_number()) fail_field(path_of(key), "must be a number, was {}", described(*value));
  const auto found = value->get<double>();
  if (!(found >= low && found <= high)) fail_field(path_of(key), "must be between {} and {}, was {}", low, high, found);
  return found;
}

std::optional<std::string> Fields::string(std::string_view key, size_t max_bytes) {
  const Json* value = raw(key);
  if (!value) return std::nullopt;
  if (!value->is_string()) fail_field(path_of(key), "must be a string, was {}", described(*value));
  auto found = value->get<std::string>();
  if (found.size() > max_bytes) fail_field(path_of(key), "must have at most {} bytes, has {}", max_bytes, found.size());
  return found;
}

std::vector<int32_t> Fields::token_ids(std::string_view key, int64_t vocab_size) {
  const Json* value = raw(key);
  std::vector<int32_t> ids;
  if (!value) return ids;
  if (!value->is_array()) fail_field(path_of(key), "must be a list of token ids, was {}", described(*value));
  ids.reserve(value->size());
  for (size_t i = 0; i < value->size(); ++i) {
    const std::string path = fmt::format("{}[{}]", path_of(key), i);
    ids.push_back(static_cast<int32_t>(whole_number((*value)[i], path, 0, vocab_size - 1)));
  }
  return ids;
}

std::vector<std::string> Fields::unknown() const {
  std::vector<std::string> names;
  for (const auto& [key, value] : object_.items()) {
    if (!asked_.contains(key)) names.push_back(key);
  }
  return names;
}

}  // namespace octet
