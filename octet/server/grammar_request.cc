#include "octet/server/grammar_request.h"

#include <utility>

namespace octet {
namespace {

using Kind = GrammarSpec::Kind;

constexpr size_t kMaxGrammarBytes = size_t{256} << 10, kMaxChoices = 10'000;
constexpr int kMaxWhitespace = 8;

std::string compact(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

GrammarRequest request_for(Kind kind, std::string text, const std::string& field) {
  GrammarRequest request;
  request.spec.kind = kind;
  request.spec.text = std::move(text);
  request.field = field;
  return request;
}

// A schema, or its text.
GrammarRequest schema_of(const Json& schema, const std::string& field) {
  if (schema.is_string()) {
    const Json parsed = Json::parse(schema.get_ref<const std::string&>(), nullptr, false);
    if (parsed.is_discarded()) fail_field(field, "must be a JSON schema, was text that is not JSON");
    return schema_of(parsed.is_string() ? Json() : parsed, field);
  }
  if (!schema.is_object() && !schema.is_boolean()) {
    fail_field(field, "must be a JSON schema, was {}", described(schema));
  }
  return request_for(Kind::kJsonSchema, compact(schema), field);
}

GrammarRequest text_of(Kind kind, const Json& text, const std::string& field) {
  if (!text.is_string()) fail_field(field, "must be a string, was {}", described(text));
  auto value = text.get<std::string>();
  if (value.empty()) fail_field(field, "must not be empty");
  if (value.size() > kMaxGrammarBytes) fail_field(field, "at most {} bytes, has {}", kMaxGrammarBytes, value.size());
  return request_for(kind, std::move(value), field);
}

GrammarRequest choice_of(const Json& list, const std::string& field) {
  if (!list.is_array() || list.empty()) fail_field(field, "must be a list of strings, was {}", described(list));
  if (list.size() > kMaxChoices) fail_field(field, "at most {} choices, was {}", kMaxChoices, list.size());
  std::vector<std::string> choices;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string path = fmt::format("{}[{}]", field, i);
    if (!list[i].is_string()) fail_field(path, "must be a string, was {}", described(list[i]));
    choices.push_back(list[i].get<std::string>());
    if (choices.back().empty()) fail_field(path, "must not be empty");
  }
  GrammarRequest request;
  request.spec = choice_grammar(choices);
  request.field = field;
  return request;
}

GrammarRequest tag_of(const Json& tag, const std::string& field) {
  if (tag.is_string()) {
    const Json parsed = Json::parse(tag.get_ref<const std::string&>(), nullptr, false);
    if (!parsed.is_object()) fail_field(field, "must be a structural tag, was text that is none");
    return tag_of(parsed, field);
  }
  if (!tag.is_object()) fail_field(field, "must be a structural tag, was {}", described(tag));
  if (!tag.contains("format")) fail_unsupported(field, "only structural tags with a \"format\"");
  const Json plain = {{"type", "structural_tag"}, {"format", tag["format"]}};
  return request_for(Kind::kStructuralTag, compact(plain), field);
}

GrammarRequest json_of(const Json& wanted, const std::string& field) {
  if (!wanted.is_boolean() || !wanted.get<bool>()) fail_field(field, "must be true, was {}", described(wanted));
  return request_for(Kind::kJson, "", field);
}

// Reads each field that asks for a grammar; two are too many.
class Reader {
 public:
  explicit Reader(Fields& fields) : fields_(fields) {}

  void add(GrammarRequest request) {
    if (found_) fail_field(request.field, "not together with {}", found_->field);
    found_ = std::move(request);
  }
  template <class Read>
  void read(Fields& fields, const char* key, Read to_request) {
    if (const Json* value = fields.raw(key)) add(to_request(*value, fields.path_of(key)));
  }
  static auto text(Kind kind) {
    return [kind](const Json& value, const std::string& field) { return text_of(kind, value, field); };
  }

  std::optional<GrammarRequest> run() {
    read_response_format();
    read_structured_outputs();
    for (const char* key : {"guided_json", "json_schema"}) read(fields_, key, schema_of);
    for (const char* key : {"guided_regex", "regex"}) read(fields_, key, text(Kind::kRegex));
    for (const char* key : {"guided_grammar", "ebnf", "grammar"}) read(fields_, key, text(Kind::kEbnf));
    read(fields_, "guided_choice", choice_of);
    read(fields_, "structural_tag", tag_of);
    fields_.raw("guided_decoding_backend");
    return std::move(found_);
  }

 private:
  void read_response_format() {
    const Json* format = fields_.raw("response_format");
    if (!format) return;
    Fields inner(*format, "response_format");
    const std::string type = inner.string("type").value_or("");
    if (type == "json_object") return add(request_for(Kind::kJson, "", "response_format"));
    if (type == "structural_tag") return add(tag_of(*format, "response_format"));
    if (type == "json_schema") {
      const Json* named = inner.raw("json_schema");
      if (!named) fail_field("response_format.json_schema", "is required");
      Fields schema(*named, "response_format.json_schema");
      schema.boolean("strict");  // it always is
      const Json* value = schema.raw("schema");
      if (!value) fail_field(schema.path_of("schema"), "is required");
      return add(schema_of(*value, schema.path_of("schema")));
    }
    if (type != "text") {
      fail_field("response_format.type", "must be text, json_object, json_schema or structural_tag");
    }
  }

  void read_structured_outputs() {
    const Json* outputs = fields_.raw("structured_outputs");
    if (!outputs) return;
    Fields inner(*outputs, "structured_outputs");
    const bool had_one = found_.has_value();
    read(inner, "json", schema_of);
    read(inner, "regex", text(Kind::kRegex));
    read(inner, "choice", choice_of);
    read(inner, "grammar", text(Kind::kEbnf));
    read(inner, "json_object", json_of);
    read(inner, "structural_tag", tag_of);
    for (const char* key : {"whitespace_pattern", "disable_any_whitespace", "disable_additional_properties"}) {
      const Json* value = inner.raw(key);
      if (value && *value != false) fail_unsupported(inner.path_of(key), "octet does not support it");
    }
    inner.boolean("disable_fallback");  // there is none
    if (!had_one && !found_) {
      fail_field("structured_outputs", "needs one of json, regex, choice, grammar, json_object, structural_tag");
    }
  }

  Fields& fields_;
  std::optional<GrammarRequest> found_;
};

Json format_of(const GrammarSpec& spec) {
  switch (spec.kind) {
    case Kind::kJson:
      return {{"type", "json_schema"},
              {"json_schema", {{"type", "object"}, {"additionalProperties", true}}},
              {"max_whitespace_cnt", kMaxWhitespace}};
    case Kind::kJsonSchema:
      return {{"type", "json_schema"}, {"json_schema", Json::parse(spec.text)}, {"max_whitespace_cnt", kMaxWhitespace}};
    case Kind::kRegex:
      return {{"type", "regex"}, {"pattern", spec.text}};
    case Kind::kEbnf:
      return {{"type", "grammar"}, {"grammar", spec.text}};
    case Kind::kStructuralTag:
      return Json::parse(spec.text)["format"];
  }
  return nullptr;
}

}  // namespace

std::optional<GrammarRequest> read_grammar(Fields& fields) { return Reader(fields).run(); }

GrammarSpec after_reasoning(const GrammarSpec& spec, ReasoningStyle style) {
  if (style == ReasoningStyle::kNone) return spec;
  const bool opened = style == ReasoningStyle::kOpened;
  const Json thought = {
      {"type", "tag"}, {"begin", opened ? "" : "<think>"}, {"content", {{"type", "any_text"}}}, {"end", "</think>"}};
  const Json space = {{"type", "regex"}, {"pattern", "[ \\n]{0,4}"}};
  const Json first = {{"type", "sequence"}, {"elements", Json::array({thought, space})}};
  const Json maybe = opened ? first : Json{{"type", "optional"}, {"content", first}};
  const Json format = {{"type", "sequence"}, {"elements", Json::array({maybe, format_of(spec)})}};
  return {.kind = Kind::kStructuralTag, .text = compact({{"type", "structural_tag"}, {"format", format}})};
}

}  // namespace octet
