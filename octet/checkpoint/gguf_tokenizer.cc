#include "octet/checkpoint/gguf_tokenizer.h"

#include <algorithm>
#include <optional>
#include <unordered_map>
#include <unordered_set>

#include "octet/base/error.h"
#include "octet/base/log.h"
#include "octet/checkpoint/gguf_pretokenizer.h"

namespace octet {
namespace {

constexpr size_t kMaxTemplateBytes = size_t{1} << 20;
constexpr size_t kMaxTokens = size_t{1} << 24;
constexpr size_t kMaxPieceBytes = 512;  // every split of a piece is tried

// llama.cpp's token types.
enum TokenType : int64_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

struct Vocabulary {
  const std::vector<std::string>& tokens;
  std::vector<int64_t> types;
  size_t num_written = 0;  // tokens without the unused ones at the end, which Hugging Face's files do not list
};

Vocabulary read_vocabulary(const GgufMetadata& metadata) {
  Vocabulary vocabulary{.tokens = metadata.get_strings("tokenizer.ggml.tokens"), .types = {}};
  const size_t count = vocabulary.tokens.size();
  if (count == 0 || count > kMaxTokens)
    fail(ErrorCode::kModel, "{}: tokenizer.ggml.tokens has {} tokens", metadata.path(), count);
  const std::vector<int64_t>* types = metadata.find_ints("tokenizer.ggml.token_type");
  vocabulary.types = types ? *types : std::vector<int64_t>(count, kNormal);
  if (vocabulary.types.size() != count) {
    fail(ErrorCode::kModel, "{}: tokenizer.ggml.token_type has {} values for {} tokens", metadata.path(),
         vocabulary.types.size(), count);
  }
  std::unordered_set<std::string_view> seen;
  for (size_t i = 0; i < count; ++i) {
    if (!seen.insert(vocabulary.tokens[i]).second) {
      fail(ErrorCode::kModel, "{}: tokenizer.ggml.tokens: \"{}\" occurs twice, again as {}", metadata.path(),
           vocabulary.tokens[i], i);
    }
    if (vocabulary.types[i] < kNormal || vocabulary.types[i] > kByte) {
      fail(ErrorCode::kModel, "{}: tokenizer.ggml.token_type: {} of token {} is not a type", metadata.path(),
           vocabulary.types[i], i);
    }
  }
  vocabulary.num_written = count;
  while (vocabulary.num_written > 1 && vocabulary.types[vocabulary.num_written - 1] == kUnused)
    --vocabulary.num_written;
  return vocabulary;
}

// The id under `key`, checked against the vocabulary; nothing when absent. llama.cpp writes 0xffffffff for none.
std::optional<int64_t> token_id(const GgufMetadata& metadata, std::string_view key, const Vocabulary& vocabulary) {
  const std::optional<int64_t> id = metadata.find_int(key);
  if (!id || *id == -1 || *id == 0xffffffff) return std::nullopt;
  return metadata.get_int_in(key, 0, static_cast<int64_t>(vocabulary.tokens.size()) - 1);
}

const std::string& token_text(const Vocabulary& vocabulary, int64_t id) {
  return vocabulary.tokens[static_cast<size_t>(id)];
}

Json vocab_json(const Vocabulary& vocabulary) {
  // Filled as the vector that it is: operator[] of an ordered object walks over all keys.
  Json::object_t object;
  object.reserve(vocabulary.num_written);
  for (size_t i = 0; i < vocabulary.num_written; ++i)
    object.push_back({vocabulary.tokens[i], Json(static_cast<int64_t>(i))});
  return Json(std::move(object));
}

Json added_tokens_json(const Vocabulary& vocabulary) {
  Json list = Json::array();
  for (size_t i = 0; i < vocabulary.num_written; ++i) {
    const bool special = vocabulary.types[i] == kControl || vocabulary.types[i] == kUnknown;
    if (!special && vocabulary.types[i] != kUserDefined) continue;
    list.push_back({{"id", i},
                    {"content", vocabulary.tokens[i]},
                    {"single_word", false},
                    {"lstrip", false},
                    {"rstrip", false},
                    {"normalized", false},
                    {"special", special}});
  }
  return list;
}

// Adds beginning and end of sequence round the text, after `inner` (or null).
Json template_processing(const Vocabulary& vocabulary, const GgufMetadata& metadata, const GgufPreTokenizer& pre) {
  const bool add_bos = metadata.find_bool("tokenizer.ggml.add_bos_token").value_or(pre.add_bos);
  const bool add_eos = metadata.find_bool("tokenizer.ggml.add_eos_token").value_or(false);
  Json single = Json::array();
  Json pair = Json::array();
  Json special = Json::object();
  const auto add = [&](std::string_view key, const char* what, bool wanted) {
    if (!wanted) return;
    const std::optional<int64_t> id = token_id(metadata, key, vocabulary);
    if (!id)
      fail(ErrorCode::kModel, "{}: the tokenizer adds the {} token, but {} is missing", metadata.path(), what, key);
    const std::string& text = token_text(vocabulary, *id);
    single.push_back({{"SpecialToken", {{"id", text}, {"type_id", 0}}}});
    pair.push_back({{"SpecialToken", {{"id", text}, {"type_id", 1}}}});
    special[text] = {{"id", text}, {"ids", Json::array({*id})}, {"tokens", Json::array({text})}};
  };
  add("tokenizer.ggml.bos_token_id", "beginning-of-sequence", add_bos);
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  pair.push_back({{"Sequence", {{"id", "B"}, {"type_id", 1}}}});
  add("tokenizer.ggml.eos_token_id", "end-of-sequence", add_eos);
  if (!add_bos && !add_eos) return nullptr;
  Json both = single;
  for (const Json& piece : pair) both.push_back(piece);
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", both}, {"special_tokens", special}};
}

Json document(const Vocabulary& vocabulary, const GgufPreTokenizer& pre, Json model, Json post_processor) {
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added_tokens_json(vocabulary)},
          {"normalizer", pre.normalizer},
          {"pre_tokenizer", pre.pre_tokenizer},
          {"post_processor", std::move(post_processor)},
          {"decoder", pre.decoder},
          {"model", std::move(model)}};
}

Json byte_level_model(const Vocabulary& vocabulary, const GgufMetadata& metadata, const GgufPreTokenizer& pre) {
  const std::unordered_set<std::string_view> known(vocabulary.tokens.begin(), vocabulary.tokens.end());
  Json merges = Json::array();
  for (const std::string& merge : metadata.get_strings("tokenizer.ggml.merges")) {
    // Tokens are byte-level: a space inside one is written as another letter, so the first space that is not at the
    // start separates.
    const size_t space = merge.find(' ', 1);
    if (space == std::string::npos)
      fail(ErrorCode::kModel, "{}: tokenizer.ggml.merges: \"{}\" is not a pair", metadata.path(), merge);
    const std::string left = merge.substr(0, space);
    const std::string right = merge.substr(space + 1);
    if (!known.contains(left) || !known.contains(right) || !known.contains(left + right)) {
      fail(ErrorCode::kModel, "{}: tokenizer.ggml.merges: \"{}\" names or makes a token that does not exist",
           metadata.path(), merge);
    }
    merges.push_back(Json::array({left, right}));
  }
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", nullptr},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", false},
          {"byte_fallback", false},
          {"ignore_merges", pre.ignore_merges},
          {"vocab", vocab_json(vocabulary)},
          {"merges", std::move(merges)}};
}

Json sentencepiece_model(const Vocabulary& vocabulary, const GgufMetadata& metadata) {
  const std::vector<double>* scores = metadata.find_numbers("tokenizer.ggml.scores");
  if (!scores || scores->size() != vocabulary.tokens.size()) {
    fail(ErrorCode::kModel, "{}: tokenizer.ggml.scores has {} values for {} tokens", metadata.path(),
         scores ? scores->size() : 0, vocabulary.tokens.size());
  }
  std::vector<bool> is_piece;
  Json unknown = nullptr;
  size_t num_bytes = 0;
  for (size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    if (vocabulary.tokens[i].size() > kMaxPieceBytes) {
      fail(ErrorCode::kModel, "{}: tokenizer.ggml.tokens: token {} has {} bytes, at most {} are read", metadata.path(),
           i, vocabulary.tokens[i].size(), kMaxPieceBytes);
    }
    is_piece.push_back(vocabulary.types[i] == kNormal || vocabulary.types[i] == kUserDefined);
    if (vocabulary.types[i] == kUnknown) unknown = vocabulary.tokens[i];
    if (vocabulary.types[i] == kByte) ++num_bytes;
  }
  Json merges = Json::array();
  for (auto& [left, right] :
       merges_from_scores({.pieces = vocabulary.tokens, .scores = *scores, .is_piece = is_piece})) {
    merges.push_back(Json::array({std::move(left), std::move(right)}));
  }
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", unknown},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", true},
          {"byte_fallback", num_bytes == 256},
          {"ignore_merges", false},
          {"vocab", vocab_json(vocabulary)},
          {"merges", std::move(merges)}};
}

Json tokenizer_config(const Vocabulary& vocabulary, const GgufMetadata& metadata) {
  Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"clean_up_tokenization_spaces", false}};
  constexpr std::pair<const char*, const char*> kNamedTokens[] = {{"bos_token", "tokenizer.ggml.bos_token_id"},
                                                                  {"eos_token", "tokenizer.ggml.eos_token_id"},
                                                                  {"unk_token", "tokenizer.ggml.unknown_token_id"},
                                                                  {"pad_token", "tokenizer.ggml.padding_token_id"}};
  for (const auto& [name, key] : kNamedTokens) {
    if (const auto id = token_id(metadata, key, vocabulary)) config[name] = token_text(vocabulary, *id);
  }
  for (const char* name : {"add_bos_token", "add_eos_token"}) {
    if (const auto flag = metadata.find_bool(std::string("tokenizer.ggml.") + name)) config[name] = *flag;
  }
  if (const std::string* text = metadata.find_string("tokenizer.chat_template")) {
    if (text->size() > kMaxTemplateBytes)
      fail(ErrorCode::kModel, "{}: tokenizer.chat_template has {} bytes, at most {} are read", metadata.path(),
           text->size(), kMaxTemplateBytes);
    config["chat_template"] = *text;
  }
  return config;
}

size_t num_code_points(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

}  // namespace

std::vector<std::pair<std::string, std::string>> merges_from_scores(const ScoredPieces& vocabulary) {
  struct Merge {
    double score;
    size_t left_length;
    size_t right_length;
    std::string_view left;
    std::string_view right;
  };
  std::unordered_map<std::string_view, size_t> ids;
  for (size_t i = 0; i < vocabulary.pieces.size(); ++i) {
    if (vocabulary.is_piece[i]) ids.emplace(vocabulary.pieces[i], i);
  }
  std::vector<Merge> merges;
  for (size_t i = 0; i < vocabulary.pieces.size(); ++i) {
    if (!vocabulary.is_piece[i]) continue;
    const std::string_view whole = vocabulary.pieces[i];
    std::vector<std::pair<std::pair<size_t, size_t>, size_t>> splits;  // ids of left and right, then where
    for (size_t at = 1; at < whole.size(); ++at) {
      const auto left = ids.find(whole.substr(0, at));
      const auto right = left == ids.end() ? ids.end() : ids.find(whole.substr(at));
      if (right != ids.end()) splits.push_back({{left->second, right->second}, at});
    }
    std::sort(splits.begin(), splits.end());
    for (const auto& [pair, at] : splits) {
      const std::string_view left = whole.substr(0, at);
      const std::string_view right = whole.substr(at);
      merges.push_back({vocabulary.scores[i], num_code_points(left), num_code_points(right), left, right});
    }
  }
  std::stable_sort(merges.begin(), merges.end(), [](const Merge& a, const Merge& b) {
    if (a.score != b.score) return a.score > b.score;
    if (a.left_length != b.left_length) return a.left_length > b.left_length;
    return a.right_length > b.right_length;
  });
  std::vector<std::pair<std::string, std::string>> pairs;
  for (const Merge& merge : merges) pairs.emplace_back(merge.left, merge.right);
  return pairs;
}

GgufTokenizer tokenizer_from_gguf(const GgufMetadata& metadata) {
  const std::string& kind = metadata.get_string("tokenizer.ggml.model");
  const Vocabulary vocabulary = read_vocabulary(metadata);
  GgufTokenizer result;
  if (kind == "gpt2") {
    const std::string* name = metadata.find_string("tokenizer.ggml.pre");
    const GgufPreTokenizer pre = byte_level_pre_tokenizer(name ? *name : "default", metadata.path());
    Json model = byte_level_model(vocabulary, metadata, pre);
    result.tokenizer = document(vocabulary, pre, std::move(model), template_processing(vocabulary, metadata, pre));
  } else if (kind == "llama") {
    const GgufPreTokenizer pre =
        sentencepiece_pre_tokenizer(metadata.find_bool("tokenizer.ggml.add_space_prefix").value_or(true));
    Json model = sentencepiece_model(vocabulary, metadata);
    result.tokenizer = document(vocabulary, pre, std::move(model), template_processing(vocabulary, metadata, pre));
  } else {
    fail(ErrorCode::kUnsupported,
         "{}: tokenizer.ggml.model \"{}\" is not supported; octet converts \"gpt2\" and \"llama\"", metadata.path(),
         kind);
  }
  result.tokenizer_config = tokenizer_config(vocabulary, metadata);
  result.num_tokens = static_cast<int64_t>(vocabulary.tokens.size());
  result.bos_token_id = token_id(metadata, "tokenizer.ggml.bos_token_id", vocabulary).value_or(-1);
  for (const char* key :
       {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    const std::optional<int64_t> id = token_id(metadata, key, vocabulary);
    if (id && std::find(result.eos_token_ids.begin(), result.eos_token_ids.end(), *id) == result.eos_token_ids.end())
      result.eos_token_ids.push_back(*id);
  }
  return result;
}

}  // namespace octet
