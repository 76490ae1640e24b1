// octet tokenize, octet detokenize: JSON lines through a tokenizer.
#include "octet/base/error.h"
#include "octet/checkpoint/hub_cache.h"
#include "octet/text/detokenizer.h"
#include "octet/text/tokenizer.h"
#include "tools/commands.h"
#include "tools/json_lines.h"

namespace octet {
namespace {

Json tokenize_line(const Tokenizer& tokenizer, const JsonObject& line) {
  const bool add = line.find_bool("add_special_tokens").value_or(true);
  const auto ids = tokenizer.encode(line.get_string("text"), add ? AddSpecialTokens::kYes : AddSpecialTokens::kNo);
  return {{"ids", ids}};
}

std::vector<int32_t> ids_of(const JsonObject& line) {
  const Json* ids = line.find_raw("ids");
  if (!ids || !ids->is_array()) fail(ErrorCode::kInvalid, "{}: ids: expected an array of integers", line.where());
  std::vector<int32_t> result;
  for (const Json& id : *ids) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > INT32_MAX) {
      fail(ErrorCode::kInvalid, "{}: ids: expected an array of token ids, found {}", line.where(), id.dump());
    }
    result.push_back(id.get<int32_t>());
  }
  return result;
}

Json detokenize_line(const Tokenizer& tokenizer, const JsonObject& line) {
  const std::vector<int32_t> ids = ids_of(line);
  const bool skip = line.find_bool("skip_special_tokens").value_or(true);
  const SpecialTokens special = skip ? SpecialTokens::kSkip : SpecialTokens::kKeep;
  if (!line.find_bool("stream").value_or(false)) return {{"text", tokenizer.decode(ids, special)}};
  Detokenizer stream(tokenizer, special);
  Json pieces = Json::array();
  for (const int32_t id : ids) {
    const auto piece = stream.push(id);
    pieces.push_back(piece ? Json(*piece) : Json(nullptr));
  }
  return {{"pieces", std::move(pieces)}, {"tail", stream.finish()}};
}

using Answer = Json (*)(const Tokenizer&, const JsonObject&);

void add(CLI::App& program, const char* name, const char* text, Answer answer) {
  auto folder = std::make_shared<std::string>();
  CLI::App* app = program.add_subcommand(name, text);
  app->add_option("dir", *folder, "a model, or any folder with a tokenizer.json")->required();
  app->callback([folder, answer] {
    const Tokenizer tokenizer = Tokenizer::from_folder(resolve_model(*folder));
    answer_json_lines([&](const JsonObject& line) { return answer(tokenizer, line); });
  });
}

}  // namespace

void add_tokenize(CLI::App& program) {
  add(program, "tokenize", "JSON lines {\"text\", \"add_special_tokens\"} -> {\"ids\"}", tokenize_line);
}

void add_detokenize(CLI::App& program) {
  add(program, "detokenize",
      "JSON lines {\"ids\", \"skip_special_tokens\", \"stream\"} -> {\"text\"}; with stream {\"pieces\"} (one per id, "
      "null: held back) and {\"tail\"}",
      detokenize_line);
}

}  // namespace octet
