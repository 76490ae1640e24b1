#include "tools/bench_dataset.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <sstream>

#include "octet/base/error.h"
#include "octet/base/json.h"
#include "octet/base/log.h"

namespace octet {
namespace {

constexpr int64_t kMaxOutputTokens = 2147483647;
constexpr int kMaxTries = 10;                                                  // to find a text of so many tokens
constexpr int64_t kMinTokens = 4, kMaxPromptTokens = 1024, kMaxTokens = 2048;  // vLLM's, of ShareGPT

int64_t num_tokens(const Tokenizer& tokenizer, const std::string& text) {
  return static_cast<int64_t>(tokenizer.encode(text, AddSpecialTokens::kNo).size());
}

class RandomTexts {
 public:
  RandomTexts(const Tokenizer& tokenizer, uint64_t seed) : tokenizer_(tokenizer), random_(seed) {
    for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
      if (!tokenizer.is_special(id)) ids_.push_back(id);
    }
    if (ids_.empty()) fail(ErrorCode::kModel, "the tokenizer has special tokens only");
  }

  int64_t length(int64_t middle, double ratio) {
    const auto low = static_cast<int64_t>(std::floor(static_cast<double>(middle) * (1 - ratio)));
    const auto high = static_cast<int64_t>(std::ceil(static_cast<double>(middle) * (1 + ratio)));
    return std::uniform_int_distribution<int64_t>(std::max<int64_t>(low, 1), std::max<int64_t>(high, 1))(random_);
  }

  // Consecutive ids from a random one on.
  std::vector<int32_t> run(int64_t length) {
    size_t at = std::uniform_int_distribution<size_t>(0, ids_.size() - 1)(random_);
    std::vector<int32_t> run;
    for (int64_t i = 0; i < length; ++i, ++at) run.push_back(ids_[at % ids_.size()]);
    return run;
  }

  // A text of these tokens, or others where the tokenizer would cut their text in another way.
  BenchPrompt text_of(std::vector<int32_t> tokens) {
    const size_t wanted = tokens.size();
    BenchPrompt prompt;
    for (int i = 0; i < kMaxTries; ++i) {
      prompt.text = tokenizer_.decode(tokens, SpecialTokens::kKeep);
      tokens = tokenizer_.encode(prompt.text, AddSpecialTokens::kNo);
      prompt.num_tokens = static_cast<int64_t>(tokens.size());
      if (tokens.size() == wanted) break;
      if (tokens.size() > wanted) {
        tokens.resize(wanted);
      } else {
        const auto more = run(static_cast<int64_t>(wanted - tokens.size()));
        tokens.insert(tokens.end(), more.begin(), more.end());
      }
    }
    return prompt;
  }

 private:
  const Tokenizer& tokenizer_;
  std::mt19937_64 random_;
  std::vector<int32_t> ids_;
};

void repeat_to(std::vector<BenchPrompt>& prompts, int64_t count, const std::string& path) {
  if (prompts.empty()) fail(ErrorCode::kInvalid, "{}: has no prompt that can be used", path);
  const size_t given = prompts.size();
  if (static_cast<int64_t>(given) < count) log_warning("{}: has {} prompts; they are repeated", path, given);
  while (static_cast<int64_t>(prompts.size()) < count) prompts.push_back(prompts[prompts.size() % given]);
}

// What is said in a turn of a conversation; nullptr when it is no such thing.
const std::string* said(const Json& turn) {
  if (!turn.is_object()) return nullptr;
  const auto found = turn.find("value");
  return found != turn.end() && found->is_string() ? found->get_ptr<const std::string*>() : nullptr;
}

}  // namespace

std::vector<BenchPrompt> random_prompts(const RandomDataset& dataset, int64_t count, const Tokenizer& tokenizer) {
  RandomTexts texts(tokenizer, dataset.seed);
  const std::vector<int32_t> prefix = texts.run(dataset.prefix_len);
  std::vector<BenchPrompt> prompts;
  for (int64_t i = 0; i < count; ++i) {
    std::vector<int32_t> tokens = prefix;
    const auto own = texts.run(texts.length(dataset.input_len, dataset.range_ratio));
    tokens.insert(tokens.end(), own.begin(), own.end());
    prompts.push_back(texts.text_of(std::move(tokens)));
    prompts.back().output_len = texts.length(dataset.output_len, dataset.range_ratio);
  }
  return prompts;
}

std::vector<BenchPrompt> sharegpt_prompts(const std::string& text, const std::string& path, int64_t count,
                                          std::optional<int64_t> output_len, uint64_t seed,
                                          const Tokenizer& tokenizer) {
  const Json file = Json::parse(text, nullptr, false);
  if (!file.is_array()) fail(ErrorCode::kInvalid, "{}: must be a JSON list of conversations", path);
  std::vector<const Json*> order;
  for (const Json& entry : file) {
    if (!entry.is_object()) continue;
    const auto found = entry.find("conversations");
    if (found != entry.end() && found->is_array() && found->size() >= 2) order.push_back(&*found);
  }
  std::shuffle(order.begin(), order.end(), std::mt19937_64(seed));
  std::vector<BenchPrompt> prompts;
  for (const Json* conversation : order) {
    if (static_cast<int64_t>(prompts.size()) >= count) break;
    const std::string* question = said((*conversation)[0]);
    const std::string* answer = said((*conversation)[1]);
    if (!question || !answer) continue;
    const int64_t length = num_tokens(tokenizer, *question);
    const int64_t output = output_len ? *output_len : num_tokens(tokenizer, *answer);
    if (length < kMinTokens || (!output_len && output < kMinTokens)) continue;
    if (length > kMaxPromptTokens || length + output > kMaxTokens) continue;
    prompts.push_back({.text = *question, .num_tokens = length, .output_len = output});
  }
  repeat_to(prompts, count, path);
  return prompts;
}

std::vector<BenchPrompt> custom_prompts(const std::string& text, const std::string& path, int64_t count,
                                        std::optional<int64_t> output_len, const Tokenizer& tokenizer) {
  constexpr int64_t kOutputLen = 256;
  std::istringstream lines(text);
  std::vector<BenchPrompt> prompts;
  int64_t number = 0;
  for (std::string line; static_cast<int64_t>(prompts.size()) < count && std::getline(lines, line);) {
    ++number;
    if (line.empty()) continue;
    const Json json = Json::parse(line, nullptr, false);
    if (!json.is_object() || !json.contains("prompt") || !json["prompt"].is_string()) {
      fail(ErrorCode::kInvalid, "{}: line {}: must be an object with a string \"prompt\"", path, number);
    }
    const Json own = json.value("output_tokens", Json());
    if (!own.is_null() && (!own.is_number_integer() || own < 1 || own > kMaxOutputTokens)) {
      fail(ErrorCode::kInvalid, "{}: line {}: output_tokens must be a whole number from 1 to {}", path, number,
           kMaxOutputTokens);
    }
    const int64_t output = output_len ? *output_len : own.is_null() ? kOutputLen : own.get<int64_t>();
    const std::string prompt = json["prompt"];
    prompts.push_back({.text = prompt, .num_tokens = num_tokens(tokenizer, prompt), .output_len = output});
  }
  repeat_to(prompts, count, path);
  return prompts;
}

}  // namespace octet
