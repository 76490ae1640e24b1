#include "octet/checkpoint/gguf_pretokenizer.h"

#include <span>
#include <string>

#include "octet/base/error.h"
#include "octet/base/log.h"

namespace octet {
namespace {

// The patterns of the models' own tokenizer.json files.
constexpr const char* kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kTekkenPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kDeepseekLetters =
    "\\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-"
    "\u0373\u0376\u0377\u037b-\u037d"
    "\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-"
    "\u10c5\u13a0-\u13f5\u13f8-\u13fd"
    "\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-"
    "\u1f4d\u1f50-\u1f57\u1f59"
    "\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-"
    "\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4"
    "\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-"
    "\u213f\u2145-\u2149"
    "\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-"
    "\ua76f\ua771-\ua787\ua78b-\ua78e"
    "\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-"
    "\U000104d3\U000104d8-\U000104fb"
    "\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943]+";
constexpr const char* kDeepseekPunctuation = "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+";
constexpr const char* kDeepseekHan = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+";

Json byte_level(bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", use_regex}};
}
Json digits() { return {{"type", "Digits"}, {"individual_digits", true}}; }
Json split(const char* pattern) {
  return {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
}
Json sequence(Json parts) { return {{"type", "Sequence"}, {"pretokenizers", std::move(parts)}}; }

Json gpt2() { return byte_level(true); }
Json digits_gpt2() { return sequence(Json::array({digits(), byte_level(true)})); }
Json llama3() { return sequence(Json::array({split(kLlama3Pattern), byte_level(false)})); }
Json qwen2() { return sequence(Json::array({split(kQwen2Pattern), byte_level(false)})); }
Json tekken() { return sequence(Json::array({split(kTekkenPattern), byte_level(false)})); }
Json deepseek_llm() {
  return sequence(Json::array({split("[\r\n]"), split(kDeepseekLetters), split(kDeepseekPunctuation), split("\\s+$"),
                               split(kDeepseekHan), digits(), byte_level(false)}));
}
Json deepseek_coder() {
  return sequence(Json::array(
      {split("[\r\n]"), split("\\s?\\p{L}+"), split("\\s?\\p{P}+"), split(kDeepseekHan), digits(), byte_level(false)}));
}

struct Row {
  std::string_view name;  // tokenizer.ggml.pre
  Json (*pre_tokenizer)() = nullptr;
  const char* normalizer = nullptr;
  bool ignore_merges = false;
  bool add_bos = false;
};

constexpr Row kRows[] = {
    {.name = "default", .pre_tokenizer = gpt2},
    {.name = "gpt-2", .pre_tokenizer = gpt2},
    {.name = "smollm", .pre_tokenizer = digits_gpt2},
    {.name = "starcoder", .pre_tokenizer = digits_gpt2},
    {.name = "llama-bpe", .pre_tokenizer = llama3, .ignore_merges = true, .add_bos = true},
    {.name = "llama3", .pre_tokenizer = llama3, .ignore_merges = true, .add_bos = true},
    {.name = "llama-v3", .pre_tokenizer = llama3, .ignore_merges = true, .add_bos = true},
    {.name = "qwen2", .pre_tokenizer = qwen2, .normalizer = "NFC"},
    {.name = "deepseek-r1-qwen", .pre_tokenizer = qwen2, .normalizer = "NFC"},
    {.name = "tekken", .pre_tokenizer = tekken, .ignore_merges = true, .add_bos = true},
    {.name = "deepseek-llm", .pre_tokenizer = deepseek_llm},
    {.name = "deepseek-coder", .pre_tokenizer = deepseek_coder},
};

}  // namespace

GgufPreTokenizer byte_level_pre_tokenizer(std::string_view name, std::string_view path) {
  std::string names;
  for (const Row& row : kRows) {
    if (row.name == name) {
      if (name == "default") warn_once(fmt::format("{}: does not name its pre-tokenizer; GPT-2's is used", path));
      Json normalizer = nullptr;
      if (row.normalizer) normalizer = {{"type", row.normalizer}};
      return {
          .normalizer = std::move(normalizer),
          .pre_tokenizer = row.pre_tokenizer(),
          .decoder = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}},
          .ignore_merges = row.ignore_merges,
          .add_bos = row.add_bos};
    }
    names += fmt::format("{}{}", names.empty() ? "" : ", ", row.name);
  }
  fail(ErrorCode::kUnsupported, "{}: tokenizer.ggml.pre \"{}\" is not supported; octet knows {}", path, name, names);
}

GgufPreTokenizer sentencepiece_pre_tokenizer(bool add_space_prefix) {
  const char* space = "\u2581";
  Json steps = Json::array();
  Json decoders = Json::array({Json{{"type", "Replace"}, {"pattern", {{"String", space}}}, {"content", " "}},
                               Json{{"type", "ByteFallback"}}, Json{{"type", "Fuse"}}});
  if (add_space_prefix) {
    steps.push_back({{"type", "Prepend"}, {"prepend", space}});
    decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  steps.push_back({{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", space}});
  return {.normalizer = {{"type", "Sequence"}, {"normalizers", std::move(steps)}},
          .pre_tokenizer = nullptr,
          .decoder = {{"type", "Sequence"}, {"decoders", std::move(decoders)}},
          .add_bos = true};
}

}  // namespace octet
