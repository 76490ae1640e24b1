// What `octet bench serve` sends: the prompts of vLLM's datasets "random", "sharegpt" and "custom".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "octet/text/tokenizer.h"

namespace octet {

struct BenchPrompt {
  std::string text;
  int64_t num_tokens = 0;  // without special tokens
  int64_t output_len = 0;
};

struct RandomDataset {
  int64_t input_len = 1024, output_len = 128, prefix_len = 0;
  double range_ratio = 0.0;  // lengths are drawn from len * (1 - ratio) to len * (1 + ratio)
  uint64_t seed = 0;
};
// Texts whose tokens are runs of consecutive ids, of exactly the length drawn where text can say that; only
// `prefix_len` tokens are common to all.
std::vector<BenchPrompt> random_prompts(const RandomDataset& dataset, int64_t count, const Tokenizer& tokenizer);

// The text of a ShareGPT file, which errors call `path`: a JSON list of {"conversations": [{"value"}, {"value"}, ...]}.
// The first turn is the prompt, the second one's length the output's unless `output_len` says it. As vLLM has it, in an
// order drawn by `seed`: at least 4 and at most 1024 prompt tokens, at least 4 output tokens, at most 2048 together.
// Repeated when there are too few.
std::vector<BenchPrompt> sharegpt_prompts(const std::string& text, const std::string& path, int64_t count,
                                          std::optional<int64_t> output_len, uint64_t seed, const Tokenizer& tokenizer);

// The text of a file of JSON lines {"prompt", "output_tokens"}; `output_len` for lines without the latter. Repeated
// when there are too few.
std::vector<BenchPrompt> custom_prompts(const std::string& text, const std::string& path, int64_t count,
                                        std::optional<int64_t> output_len, const Tokenizer& tokenizer);

}  // namespace octet
