// Reading the member "model" of a tokenizer.json.
#include <algorithm>

#include "octet/base/error.h"
#include "octet/text/bpe.h"
#include "octet/text/byte_alphabet.h"
#include "octet/text/utf8.h"

namespace octet {
namespace {

using nlohmann::json;

constexpr std::string_view kSpace = "\xE2\x96\x81";

bool flag(const json& model, const char* key, const std::string& where) {
  const auto found = model.find(key);
  if (found == model.end() || found->is_null()) return false;
  if (!found->is_boolean()) fail(ErrorCode::kModel, "{}: {}: expected true or false", where, key);
  return found->get<bool>();
}

std::optional<std::string> text(const json& model, const char* key, const std::string& where) {
  const auto found = model.find(key);
  if (found == model.end() || found->is_null()) return std::nullopt;
  if (!found->is_string()) fail(ErrorCode::kModel, "{}: {}: expected a string", where, key);
  return found->get<std::string>();
}

struct Pair {
  std::string left;
  std::string right;
};

// "a b" (older files) or ["a", "b"].
Pair parse_merge(const json& merge, size_t index, const std::string& where) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return {.left = merge[0].get<std::string>(), .right = merge[1].get<std::string>()};
  }
  if (merge.is_string()) {
    const auto& line = merge.get_ref<const std::string&>();
    const size_t space = line.find(' ');
    if (space != std::string::npos && line.find(' ', space + 1) == std::string::npos) {
      return {.left = line.substr(0, space), .right = line.substr(space + 1)};
    }
  }
  fail(ErrorCode::kModel, "{}: merges[{}]: expected two tokens", where, index);
}

}  // namespace

Bpe::Bpe(const json& model, Words words, const std::string& where) : where_(where), words_(words) {
  if (!model.is_object()) fail(ErrorCode::kModel, "{}: expected an object", where);
  const std::string type = text(model, "type", where).value_or(model.contains("merges") ? "BPE" : "");
  if (type != "BPE") fail(ErrorCode::kModel, "{}: type \"{}\" is not supported (BPE is)", where, type);
  read_vocab(model, where);
  read_flags(model, where);
  read_merges(model, where);
  index_symbols();
}

void Bpe::read_vocab(const json& model, const std::string& where) {
  const auto vocab = model.find("vocab");
  if (vocab == model.end() || !vocab->is_object()) fail(ErrorCode::kModel, "{}: vocab: expected an object", where);
  tokens_.reserve(vocab->size());
  ids_.reserve(vocab->size());
  for (const auto& [token, value] : vocab->items()) {
    if (!value.is_number_integer()) fail(ErrorCode::kModel, "{}: vocab: \"{}\": expected an integer", where, token);
    const bool small = value.is_number_unsigned() && value.get<uint64_t>() <= static_cast<uint64_t>(kMaxTokenId);
    if (!small)
      fail(ErrorCode::kModel, "{}: vocab: \"{}\": id {} is outside [0, {}]", where, token, value.dump(), kMaxTokenId);
    const auto id = value.get<size_t>();
    if (id >= token_of_id_.size()) token_of_id_.resize(id + 1, -1);
    if (token_of_id_[id] >= 0) {
      fail(ErrorCode::kModel, "{}: vocab: \"{}\" and \"{}\" have the same id {}", where,
           tokens_[static_cast<size_t>(token_of_id_[id])], token, id);
    }
    token_of_id_[id] = static_cast<int32_t>(tokens_.size());
    tokens_.push_back(token);
    ids_.emplace(tokens_.back(), static_cast<int32_t>(id));
  }
}

void Bpe::read_flags(const json& model, const std::string& where) {
  byte_fallback_ = flag(model, "byte_fallback", where);
  fuse_unk_ = flag(model, "fuse_unk", where);
  ignore_merges_ = flag(model, "ignore_merges", where);
  unk_token_ = text(model, "unk_token", where);
  if (unk_token_) unk_id_ = token_to_id(*unk_token_);
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!text(model, key, where).value_or("").empty()) fail(ErrorCode::kModel, "{}: {} is not supported", where, key);
  }
  const auto dropout = model.find("dropout");
  if (dropout != model.end() && !dropout->is_null() && !(dropout->is_number() && dropout->get<double>() == 0)) {
    fail(ErrorCode::kModel, "{}: dropout: expected null, found {}", where, dropout->dump());
  }
}

void Bpe::read_merges(const json& model, const std::string& where) {
  const auto merges = model.find("merges");
  if (merges == model.end() || !merges->is_array()) fail(ErrorCode::kModel, "{}: merges: expected a list", where);
  merges_.reserve(merges->size());
  splits_at_spaces_ = words_ == Words::kText && !ignore_merges_ && ids_.contains(kSpace);
  for (size_t i = 0; i < merges->size(); ++i) {
    const Pair pair = parse_merge((*merges)[i], i, where);
    const std::string both = pair.left + pair.right;
    const auto id_of = [&](const std::string& token) {
      const auto found = ids_.find(token);
      if (found == ids_.end())
        fail(ErrorCode::kModel, "{}: merges[{}]: \"{}\" is not in the vocabulary", where, i, token);
      return found->second;
    };
    const int32_t left = id_of(pair.left);
    const int32_t right = id_of(pair.right);
    merges_.insert(left, right, {.rank = static_cast<uint32_t>(i), .token_id = id_of(both)});
    if (pair.right.starts_with(kSpace) && !pair.left.ends_with(kSpace)) splits_at_spaces_ = false;
  }
}

void Bpe::index_symbols() {
  byte_symbols_.fill(-1);
  fallback_.fill(-1);
  for (const auto& [token, id] : ids_) {
    if (token.empty()) continue;
    const utf8::Decoded first = utf8::decode_at(token, 0);
    if (first.length == token.size()) character_symbols_.emplace(first.code_point, id);
  }
  all_bytes_known_ = true;
  for (int byte = 0; byte < 256; ++byte) {
    const char32_t c = words_ == Words::kBytes ? byte_alphabet::to_code_point(static_cast<uint8_t>(byte))
                                               : static_cast<char32_t>(byte);
    const auto symbol = character_symbols_.find(c);
    const auto index = static_cast<size_t>(byte);
    if (symbol != character_symbols_.end()) byte_symbols_[index] = symbol->second;
    all_bytes_known_ = all_bytes_known_ && byte_symbols_[index] >= 0;
    if (const auto id = token_to_id(fmt::format("<0x{:02X}>", byte))) fallback_[index] = *id;
  }
  if (words_ == Words::kBytes && ignore_merges_) {
    ids_of_bytes_.reserve(tokens_.size());
    for (const auto& [token, id] : ids_) {
      if (auto bytes = byte_alphabet::to_bytes(token)) ids_of_bytes_.emplace(std::move(*bytes), id);
    }
  }
}

}  // namespace octet
