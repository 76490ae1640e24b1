#include "octet/base/json.h"

#include <set>
#include <vector>

#include "octet/base/error.h"
#include "octet/base/file.h"

namespace octet {
namespace {

constexpr int kMaxDepth = 256;
// Objects that keep their order look keys up one by one.
constexpr size_t kMaxKeys = 20'000;

// A SAX pass that only checks what nlohmann's DOM parser does not: depth and duplicate keys.
class LimitChecker : public nlohmann::json_sax<Json> {
 public:
  explicit LimitChecker(std::string_view where) : where_(where) {}

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override {
    keys_.emplace_back();
    return deeper();
  }
  bool end_object() override {
    keys_.pop_back();
    --depth_;
    return true;
  }
  bool start_array(std::size_t) override { return deeper(); }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool key(string_t& name) override {
    if (!keys_.back().insert(name).second) fail(ErrorCode::kModel, "{}: duplicate key \"{}\"", where_, name);
    if (keys_.back().size() > kMaxKeys)
      fail(ErrorCode::kModel, "{}: an object with more than {} keys", where_, kMaxKeys);
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    // The library's text starts with its own tag "[json.exception...] "; what follows it is readable.
    std::string text = error.what();
    if (const size_t end = text.find("] "); end != std::string::npos) text = text.substr(end + 2);
    fail(ErrorCode::kModel, "{}: not valid JSON at byte {}: {}", where_, position, text);
  }

 private:
  bool deeper() {
    if (++depth_ > kMaxDepth) fail(ErrorCode::kModel, "{}: JSON nested deeper than {}", where_, kMaxDepth);
    return true;
  }

  std::string_view where_;
  int depth_ = 0;
  std::vector<std::set<std::string>> keys_;
};

std::string shown(const Json& value) {
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  return text.size() > 60 ? text.substr(0, 57) + "..." : text;
}

}  // namespace

Json parse_json(std::string_view text, std::string_view where) {
  LimitChecker checker(where);
  Json::sax_parse(text.begin(), text.end(), &checker);
  return Json::parse(text.begin(), text.end());
}

Json read_json_file(const std::string& path, int64_t max_bytes) { return parse_json(read_file(path, max_bytes), path); }

JsonObject::JsonObject(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
  if (!object.is_object()) fail(ErrorCode::kModel, "{}: expected a JSON object, found {}", where_, shown(object));
}

const Json* JsonObject::find_raw(std::string_view key) const {
  const auto it = object_.find(key);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

void JsonObject::wrong_type(std::string_view key, std::string_view expected, const Json& found) const {
  fail(ErrorCode::kModel, "{}: {}: expected {}, found {}", where_, key, expected, shown(found));
}

void JsonObject::missing(std::string_view key) const { fail(ErrorCode::kModel, "{}: {} is missing", where_, key); }

std::optional<int64_t> JsonObject::find_int(std::string_view key) const {
  const Json* value = find_raw(key);
  if (!value) return std::nullopt;
  if (!value->is_number_integer()) wrong_type(key, "an integer", *value);
  if (value->is_number_unsigned() && value->get<uint64_t>() > uint64_t{INT64_MAX})
    wrong_type(key, "a 64-bit integer", *value);
  return value->get<int64_t>();
}

std::optional<double> JsonObject::find_number(std::string_view key) const {
  const Json* value = find_raw(key);
  if (!value) return std::nullopt;
  if (!value->is_number()) wrong_type(key, "a number", *value);
  return value->get<double>();
}

std::optional<bool> JsonObject::find_bool(std::string_view key) const {
  const Json* value = find_raw(key);
  if (!value) return std::nullopt;
  if (!value->is_boolean()) wrong_type(key, "true or false", *value);
  return value->get<bool>();
}

std::optional<std::string> JsonObject::find_string(std::string_view key) const {
  const Json* value = find_raw(key);
  if (!value) return std::nullopt;
  if (!value->is_string()) wrong_type(key, "a string", *value);
  return value->get<std::string>();
}

int64_t JsonObject::get_int(std::string_view key) const {
  const auto value = find_int(key);
  if (!value) missing(key);
  return *value;
}

double JsonObject::get_number(std::string_view key) const {
  const auto value = find_number(key);
  if (!value) missing(key);
  return *value;
}

std::string JsonObject::get_string(std::string_view key) const {
  const auto value = find_string(key);
  if (!value) missing(key);
  return *value;
}

int64_t JsonObject::get_int_in(std::string_view key, int64_t low, int64_t high) const {
  const int64_t value = get_int(key);
  if (value < low || value > high) {
    fail(ErrorCode::kModel, "{}: {}: expected an integer from {} to {}, found {}", where_, key, low, high, value);
  }
  return value;
}

}  // namespace octet
