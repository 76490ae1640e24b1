// Fields: typed access to the fields of a request's JSON object. What is wrong is an ApiError with the field's path as
// its `param`: "messages[3].content". null means "not given" everywhere.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "octet/base/json.h"
#include "octet/server/api_error.h"

namespace octet {

class Fields {
 public:
  // `object` must outlive this and be a JSON object (ApiError otherwise). `path` is "" for the body itself.
  Fields(const Json& object, std::string path);
  Fields(Json&& object, std::string path) = delete;

  // nullptr when absent or null.
  const Json* raw(std::string_view key);
  std::optional<bool> boolean(std::string_view key);
  // Whole numbers; 5.0 is one.
  std::optional<int64_t> integer(std::string_view key, int64_t low, int64_t high);
  std::optional<double> number(std::string_view key, double low, double high);
  std::optional<std::string> string(std::string_view key, size_t max_bytes = size_t{1} << 20);
  std::vector<int32_t> token_ids(std::string_view key, int64_t vocab_size);

  // "messages[3]" + "content" -> "messages[3].content".
  std::string path_of(std::string_view key) const;
  const std::string& path() const { return path_; }
  // Keys that nobody asked for.
  std::vector<std::string> unknown() const;

 private:
  const Json& object_;
  std::string path_;
  std::set<std::string, std::less<>> asked_;
};

// What an error says of a value: its type, and its text if that is short.
std::string described(const Json& value);
// A whole number within [low, high], else ApiError for `path`.
int64_t whole_number(const Json& value, const std::string& path, int64_t low, int64_t high);

}  // namespace octet
