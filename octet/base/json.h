// JSON of unknown origin: nlohmann::ordered_json (object order is kept: chat templates and written files need it)
// behind a parser with limits. Key order is the document's; a key that occurs twice is an error.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace octet {

using Json = nlohmann::ordered_json;

// Throws Error{kModel}: "<where>: not valid JSON: ... at byte N", nesting deeper than 256, a duplicate key,
// an object of more than 20,000 keys.
Json parse_json(std::string_view text, std::string_view where);

// Reads and parses a file of at most max_bytes.
Json read_json_file(const std::string& path, int64_t max_bytes = int64_t{256} << 20);

// Typed access to an object's member that names the place in its errors: "config.json: hidden_size: expected an
// integer, found \"x\"". `find` gives nullopt when the key is absent or null; `get` throws then.
class JsonObject {
 public:
  // `object` must outlive this, so a temporary is refused.
  JsonObject(const Json& object, std::string where);
  JsonObject(Json&& object, std::string where) = delete;

  const Json& json() const { return object_; }
  const std::string& where() const { return where_; }
  const Json* find_raw(std::string_view key) const;

  std::optional<int64_t> find_int(std::string_view key) const;
  std::optional<double> find_number(std::string_view key) const;
  std::optional<bool> find_bool(std::string_view key) const;
  std::optional<std::string> find_string(std::string_view key) const;

  int64_t get_int(std::string_view key) const;
  double get_number(std::string_view key) const;
  std::string get_string(std::string_view key) const;

  // An integer within [low, high], else an error that says so.
  int64_t get_int_in(std::string_view key, int64_t low, int64_t high) const;

 private:
  [[noreturn]] void wrong_type(std::string_view key, std::string_view expected, const Json& found) const;
  [[noreturn]] void missing(std::string_view key) const;

  const Json& object_;
  std::string where_;
};

}  // namespace octet
