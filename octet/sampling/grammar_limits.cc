#include "octet/sampling/grammar_limits.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "octet/base/error.h"
#include "octet/base/json.h"

namespace octet {
namespace {

constexpr size_t kMaxBytes = size_t{256} << 10, kMaxPatternBytes = size_t{8} << 10;
constexpr int kMaxDepth = 64;             // of brackets, and of schemas in schemas
constexpr int64_t kMaxRepeats = 1 << 13;  // of one construct; of those around each other together

constexpr std::array<std::string_view, 13> kUnsupported = {
    "not",         "if",       "then",        "else",        "dependentRequired", "dependentSchemas", "dependencies",
    "uniqueItems", "contains", "minContains", "maxContains", "$dynamicRef",       "$recursiveRef"};
constexpr std::array<std::string_view, 5> kMapsOfSchemas = {"properties", "patternProperties", "$defs", "definitions",
                                                            "dependentSchemas"};
constexpr std::array<std::string_view, 4> kListsOfSchemas = {"anyOf", "oneOf", "allOf", "prefixItems"};
constexpr std::array<std::string_view, 6> kSchemas = {"items",         "additionalItems",       "additionalProperties",
                                                      "propertyNames", "unevaluatedProperties", "unevaluatedItems"};
constexpr std::array<std::string_view, 6> kCounts = {"minLength", "maxLength",     "minItems",
                                                     "maxItems",  "minProperties", "maxProperties"};

// The number at text[i], which is a digit; i goes behind it. Saturates.
int64_t read_count(std::string_view text, size_t& i) {
  int64_t value = 0;
  for (; i < text.size() && text[i] >= '0' && text[i] <= '9'; ++i) {
    value = std::min(value * 10 + (text[i] - '0'), kMaxRepeats + 1);
  }
  return value;
}

[[noreturn]] void fail_repeats() {
  fail(ErrorCode::kInvalid, "is too complex: repeats more than {} times, counts of nested parts multiplied",
       kMaxRepeats);
}

// Follows brackets through a regular expression or EBNF: how deep, and how often what is inside may be repeated.
// `multiple`: the factors of all counted repetitions, multiplied along the text's nesting; an upper bound is enough, so
// factors of groups that follow each other count as well once they are within one group.
class BracketScan {
 public:
  explicit BracketScan(std::string_view text) : text_(text) {}

  void run() {
    for (size_t i = 0; i < text_.size();) step(i);
  }

 private:
  void step(size_t& i) {
    const char c = text_[i];
    if (c == '\\') {
      i += 2;
      return;
    }
    ++i;
    if (in_class_) {
      in_class_ = c != ']';
    } else if (in_string_) {
      in_string_ = c != '"';
    } else if (c == '[') {
      in_class_ = true;
    } else if (c == '"' && strings_) {
      in_string_ = true;
    } else if (c == '#' && strings_) {
      while (i < text_.size() && text_[i] != '\n') ++i;
    } else if (c == '(') {
      open();
    } else if (c == ')') {
      close();
    } else if (c == '{') {
      repeat(i);
    }
  }

  void open() {
    if (++depth_ > kMaxDepth) fail(ErrorCode::kInvalid, "is nested deeper than {}", kMaxDepth);
    factors_[static_cast<size_t>(depth_)] = 1;
  }

  // What a group repeats inside is repeated by a count behind it too.
  void close() {
    inner_ = 1;
    if (depth_ == 0) return;
    inner_ = factors_[static_cast<size_t>(depth_)];
    --depth_;
    factors_[static_cast<size_t>(depth_)] = std::max(factors_[static_cast<size_t>(depth_)], inner_);
    closed_ = true;
  }

  void repeat(size_t& i) {
    int64_t count = 0;
    while (i < text_.size() && text_[i] != '}') {
      if (text_[i] >= '0' && text_[i] <= '9') {
        count = std::max(count, read_count(text_, i));
      } else {
        ++i;
      }
    }
    const int64_t product = std::max<int64_t>(count, 1) * (closed_ ? inner_ : 1);
    if (product > kMaxRepeats) fail_repeats();
    factors_[static_cast<size_t>(depth_)] = std::max(factors_[static_cast<size_t>(depth_)], product);
    sum_ += product;
    if (sum_ > 4 * kMaxRepeats) fail_repeats();
    closed_ = false;
  }

 public:
  bool strings_ = false;  // of EBNF: "..." and comments

 private:
  std::string_view text_;
  int depth_ = 0;
  std::array<int64_t, kMaxDepth + 1> factors_{1};
  int64_t inner_ = 1, sum_ = 0;
  bool in_class_ = false, in_string_ = false, closed_ = false;
};

// xgrammar leaves these out with no more than a line in its log.
void check_pattern(std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    fail(ErrorCode::kInvalid, "a regular expression may have at most {} bytes, has {}", kMaxPatternBytes,
         pattern.size());
  }
  for (size_t i = 0; i + 1 < pattern.size(); ++i) {
    if (pattern[i] == '\\') {
      const char c = pattern[++i];
      if (c == 'b' || c == 'B' || c == 'p' || c == 'P' || (c >= '1' && c <= '9')) {
        fail(ErrorCode::kUnsupported, "\\{} in a regular expression is not supported", c);
      }
    } else if (pattern[i] == '(' && pattern[i + 1] == '?' && (i + 2 == pattern.size() || pattern[i + 2] != ':')) {
      fail(ErrorCode::kUnsupported, "a regular expression may have no group that begins with (?, but (?:");
    }
  }
  BracketScan(pattern).run();
}

template <class Names>
bool is_one_of(const Names& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// A schema's places by path: "properties.a.items".
class SchemaCheck {
 public:
  void run(const Json& schema, const std::string& path, int depth) {
    if (schema.is_boolean()) return;
    if (!schema.is_object()) fail_at(path, "must be a schema: an object, true or false");
    if (depth > kMaxDepth) fail_at(path, "schemas are nested too deep");
    if (++num_schemas_ > kMaxSchemas) fail_at(path, "has too many schemas");
    for (const auto& [key, value] : schema.items())
      check_member(key, value, path.empty() ? key : path + "." + key, depth);
    const auto type = schema.find("type");
    const bool only_integer = type != schema.end() && *type == "integer";
    if (schema.contains("multipleOf") && !only_integer) fail_unsupported_at(path, "multipleOf of what is no integer");
  }

 private:
  static constexpr int kMaxSchemas = 2000;

  [[noreturn]] static void fail_at(const std::string& path, std::string_view what) {
    fail(ErrorCode::kInvalid, "{}: {}", path.empty() ? "the schema" : path, what);
  }
  [[noreturn]] static void fail_unsupported_at(const std::string& path, std::string_view what) {
    fail(ErrorCode::kUnsupported, "{}: {} is not supported", path.empty() ? "the schema" : path, what);
  }

  void check_member(const std::string& key, const Json& value, const std::string& path, int depth) {
    if (is_one_of(kUnsupported, key) && value != false) fail_unsupported_at(path, "this keyword");
    if (is_one_of(kMapsOfSchemas, key)) {
      if (!value.is_object()) fail_at(path, "must be an object");
      for (const auto& [name, inner] : value.items()) {
        if (key == "patternProperties") check_pattern(name);
        run(inner, path + "." + name, depth + 1);
      }
    } else if (is_one_of(kListsOfSchemas, key)) {
      if (!value.is_array() || value.empty()) fail_at(path, "must be a list of schemas");
      if (key == "allOf" && value.size() > 1) fail_unsupported_at(path, "more than one schema");
      for (size_t i = 0; i < value.size(); ++i) run(value[i], fmt::format("{}[{}]", path, i), depth + 1);
    } else if (is_one_of(kSchemas, key)) {
      if (value.is_array()) fail_unsupported_at(path, "a list here");
      run(value, path, depth + 1);
    } else if (is_one_of(kCounts, key)) {
      if (!value.is_number_unsigned()) fail_at(path, "must be a whole number of at least 0");
      if (value.get<uint64_t>() > uint64_t{kMaxRepeats}) fail_at(path, fmt::format("at most {}", kMaxRepeats));
      sum_counts_ += value.get<int64_t>();
      if (sum_counts_ > 8 * kMaxRepeats) fail_at(path, "all lengths and counts together are too large");
    } else {
      check_value(key, value, path);
    }
  }

  static void check_value(const std::string& key, const Json& value, const std::string& path) {
    if (key == "pattern") {
      if (!value.is_string()) fail_at(path, "must be a string");
      check_pattern(value.get_ref<const std::string&>());
    } else if (key == "type") {
      const bool is_list = value.is_array() &&
                           std::all_of(value.begin(), value.end(), [](const Json& item) { return item.is_string(); });
      if (!value.is_string() && !is_list) fail_at(path, "must be a string or a list of strings");
    } else if (key == "$ref") {
      if (!value.is_string() || !value.get_ref<const std::string&>().starts_with('#')) {
        fail_unsupported_at(path, "a reference to elsewhere");
      }
    } else if (key == "enum" && (!value.is_array() || value.empty())) {
      fail_at(path, "must be a list of values");
    } else if (key == "required" && !value.is_array()) {
      fail_at(path, "must be a list of names");
    }
  }

  int num_schemas_ = 0;
  int64_t sum_counts_ = 0;
};

void check_schema_text(const std::string& text) {
  const Json schema = Json::parse(text, nullptr, false);
  if (schema.is_discarded()) fail(ErrorCode::kInvalid, "is not JSON");
  SchemaCheck().run(schema, "", 0);
}

// Schemas and patterns wherever they stand in a structural tag.
void check_formats(const Json& format, int depth) {
  if (depth > kMaxDepth) fail(ErrorCode::kInvalid, "is nested deeper than {}", kMaxDepth);
  if (format.is_object() && format.contains("type")) {
    const Json& type = format["type"];
    if (type == "json_schema" && format.contains("json_schema")) {
      SchemaCheck().run(format["json_schema"], "json_schema", 0);
      return;
    }
    if (type == "regex" && format.value("pattern", Json()).is_string())
      check_pattern(format["pattern"].get<std::string>());
    if (type == "grammar" && format.value("grammar", Json()).is_string()) {
      check_grammar({.kind = GrammarSpec::Kind::kEbnf, .text = format["grammar"].get<std::string>()});
    }
    if (type == "repeat") {
      for (const char* name : {"min", "max"}) {
        if (format.contains(name) && format[name].is_number() && format[name].get<double>() > kMaxRepeats)
          fail_repeats();
      }
    }
  }
  if (!format.is_structured()) return;
  for (const Json& inner : format) check_formats(inner, depth + 1);
}

}  // namespace

void check_grammar(const GrammarSpec& spec) {
  using Kind = GrammarSpec::Kind;
  if (spec.text.size() > kMaxBytes) {
    fail(ErrorCode::kInvalid, "at most {} bytes, has {}", kMaxBytes, spec.text.size());
  }
  switch (spec.kind) {
    case Kind::kJson:
      return;
    case Kind::kJsonSchema:
      return check_schema_text(spec.text);
    case Kind::kRegex:
      return check_pattern(spec.text);
    case Kind::kEbnf: {
      BracketScan scan(spec.text);
      scan.strings_ = true;
      return scan.run();
    }
    case Kind::kStructuralTag: {
      const Json tag = Json::parse(spec.text, nullptr, false);
      if (tag.is_discarded()) fail(ErrorCode::kInvalid, "is not JSON");
      return check_formats(tag, 0);
    }
  }
}

}  // namespace octet
