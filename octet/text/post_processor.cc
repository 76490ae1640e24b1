#include "octet/text/post_processor.h"

#include "octet/base/error.h"
#include "octet/text/normalizer.h"

namespace octet {
namespace {

std::vector<int32_t> ids_of_special(const JsonObject& object, const std::string& name, int32_t vocab_size) {
  const Json* tokens = object.find_raw("special_tokens");
  const Json* token = tokens != nullptr && tokens->is_object() && tokens->contains(name) ? &(*tokens)[name] : nullptr;
  if (token == nullptr || !token->is_object() || !token->contains("ids") || !(*token)["ids"].is_array()) {
    fail(ErrorCode::kModel, "{}: special_tokens: \"{}\" has no ids", object.where(), name);
  }
  std::vector<int32_t> out;
  for (const Json& id : (*token)["ids"]) {
    const bool known = id.is_number_unsigned() && id.get<uint64_t>() < static_cast<uint64_t>(vocab_size);
    if (!known)
      fail(ErrorCode::kModel, "{}: special_tokens: \"{}\": id {} is not in the vocabulary", object.where(), name,
           id.dump());
    out.push_back(id.get<int32_t>());
  }
  return out;
}

SequenceFrame parse_template(const JsonObject& object, int32_t vocab_size) {
  const Json* pieces = object.find_raw("single");
  if (pieces == nullptr || !pieces->is_array()) fail(ErrorCode::kModel, "{}: single: expected a list", object.where());
  SequenceFrame frame;
  bool seen_sequence = false;
  for (const Json& piece : *pieces) {
    const JsonObject kinds(piece, object.where() + ": single");
    if (const Json* special = kinds.find_raw("SpecialToken")) {
      const std::string name = JsonObject(*special, kinds.where()).get_string("id");
      const std::vector<int32_t> ids = ids_of_special(object, name, vocab_size);
      std::vector<int32_t>& side = seen_sequence ? frame.after : frame.before;
      side.insert(side.end(), ids.begin(), ids.end());
    } else if (kinds.find_raw("Sequence") != nullptr && !seen_sequence) {
      seen_sequence = true;
    } else {
      fail(ErrorCode::kModel, "{}: expected special tokens and one sequence, found {}", kinds.where(), piece.dump());
    }
  }
  if (!seen_sequence) fail(ErrorCode::kModel, "{}: single: holds no sequence", object.where());
  return frame;
}

}  // namespace

SequenceFrame parse_post_processor(const Json& json, int32_t vocab_size, const std::string& where) {
  if (json.is_null()) return {};
  const std::string type = component_type(json, where);
  const JsonObject object(json, where + " (" + type + ")");
  if (type == "ByteLevel") return {};  // moves offsets only
  if (type == "TemplateProcessing") return parse_template(object, vocab_size);
  if (type != "Sequence") fail(ErrorCode::kModel, "{}: post-processor type \"{}\" is not supported", where, type);
  const Json* parts = object.find_raw("processors");
  if (parts == nullptr || !parts->is_array())
    fail(ErrorCode::kModel, "{}: processors: expected a list", object.where());
  SequenceFrame frame;
  for (const Json& part : *parts) {
    const SequenceFrame next = parse_post_processor(part, vocab_size, where);
    frame.before.insert(frame.before.begin(), next.before.begin(), next.before.end());
    frame.after.insert(frame.after.end(), next.after.begin(), next.after.end());
  }
  return frame;
}

}  // namespace octet
