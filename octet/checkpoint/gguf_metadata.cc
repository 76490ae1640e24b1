#include "octet/checkpoint/gguf_metadata.h"

#include "octet/base/error.h"

namespace octet {

const GgufValue* GgufMetadata::find(std::string_view key) const {
  const auto it = file_.metadata.find(key);
  return it == file_.metadata.end() ? nullptr : &it->second;
}

void GgufMetadata::wrong_type(std::string_view key, std::string_view expected) const {
  fail(ErrorCode::kModel, "{}: {}: expected {}", path_, key, expected);
}

void GgufMetadata::missing(std::string_view key) const { fail(ErrorCode::kModel, "{}: {} is missing", path_, key); }

std::optional<int64_t> GgufMetadata::find_int(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  const auto* number = std::get_if<int64_t>(value);
  if (!number) wrong_type(key, "an integer");
  return *number;
}

std::optional<double> GgufMetadata::find_number(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (const auto* integer = std::get_if<int64_t>(value)) return static_cast<double>(*integer);
  const auto* number = std::get_if<double>(value);
  if (!number) wrong_type(key, "a number");
  return *number;
}

std::optional<bool> GgufMetadata::find_bool(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  const auto* boolean = std::get_if<bool>(value);
  if (!boolean) wrong_type(key, "a boolean");
  return *boolean;
}

const std::string* GgufMetadata::find_string(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return nullptr;
  const auto* text = std::get_if<std::string>(value);
  if (!text) wrong_type(key, "a string");
  return text;
}

const std::vector<std::string>* GgufMetadata::find_strings(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return nullptr;
  const auto* array = std::get_if<GgufArray>(value);
  const auto* strings = array ? std::get_if<std::vector<std::string>>(array) : nullptr;
  if (!strings) wrong_type(key, "an array of strings");
  return strings;
}

const std::vector<int64_t>* GgufMetadata::find_ints(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return nullptr;
  const auto* array = std::get_if<GgufArray>(value);
  const auto* integers = array ? std::get_if<std::vector<int64_t>>(array) : nullptr;
  if (!integers) wrong_type(key, "an array of integers");
  return integers;
}

const std::vector<double>* GgufMetadata::find_numbers(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return nullptr;
  const auto* array = std::get_if<GgufArray>(value);
  const auto* numbers = array ? std::get_if<std::vector<double>>(array) : nullptr;
  if (!numbers) wrong_type(key, "an array of numbers");
  return numbers;
}

int64_t GgufMetadata::get_int_in(std::string_view key, int64_t low, int64_t high) const {
  const std::optional<int64_t> value = find_int(key);
  if (!value) missing(key);
  if (*value < low || *value > high)
    fail(ErrorCode::kModel, "{}: {}: expected an integer from {} to {}, found {}", path_, key, low, high, *value);
  return *value;
}

double GgufMetadata::get_number(std::string_view key) const {
  const std::optional<double> value = find_number(key);
  if (!value) missing(key);
  return *value;
}

const std::string& GgufMetadata::get_string(std::string_view key) const {
  const std::string* value = find_string(key);
  if (!value) missing(key);
  return *value;
}

const std::vector<std::string>& GgufMetadata::get_strings(std::string_view key) const {
  const std::vector<std::string>* value = find_strings(key);
  if (!value) missing(key);
  return *value;
}

}  // namespace octet
