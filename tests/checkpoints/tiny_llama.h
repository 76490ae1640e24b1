// A tiny Llama's weights as real numbers, to be written as a checkpoint of whatever structure a producer gives it.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "octet/checkpoint/weights_for_test.h"
#include "octet/engine/engine.h"

namespace octet {

struct Matrix {
  Shape shape;
  std::vector<float> values;

  float& at(int64_t row, int64_t column) { return values[static_cast<size_t>(row * shape[1] + column)]; }
  // All values, or those of some rows, times a factor.
  void scale(float factor) { scale_rows(0, shape[0], factor); }
  void scale_rows(int64_t first, int64_t count, float factor);
};

struct TinyLlama {
  int64_t hidden = 64, intermediate = 96, layers = 2, heads = 4, kv_heads = 2, head_dim = 16, vocabulary = 96;
  // What stands in place of the feed-forward network; each expert of `intermediate` channels.
  enum class Mixture : uint8_t { kNone, kMixtral, kQwen2Moe, kQwen3Moe } mixture = Mixture::kNone;
  int64_t experts = 5, experts_per_token = 2, shared_intermediate = 64;
  float router_size = 1.0f;               // of its weights
  std::map<std::string, Matrix> tensors;  // by their names in a Hugging Face checkpoint
  Json config;                            // config.json, to be added to

  // Random numbers such as BF16 has; the same for the same sizes.
  void fill();
  // "model.layers.0.self_attn.q_proj", ...: of all layers, without lm_head.
  std::vector<std::string> linears() const;
  // Renames a mixture's linears: "w1" to "gate_proj", say.
  void rename(const std::string& from, const std::string& to);
  Matrix& weight(const std::string& module) { return tensors.at(module + ".weight"); }

  // Everything that is not in `skip`, plain.
  void add_plain(TestCheckpoint& checkpoint, const std::vector<std::string>& skip = {},
                 DType dtype = DType::kF32) const;
  void write(const TestFolder& folder, const TestCheckpoint& checkpoint) const;
};

inline std::string layer_name(int64_t layer) { return "model.layers." + std::to_string(layer); }

// Options of an engine on the CPU for a folder: F32 and blocks of 4 tokens.
EngineOptions tiny_options(const TestFolder& folder);

// What an engine answers to a few prompts: greedy tokens, and the logits of all prompts' positions, one after the
// other.
struct TinyAnswers {
  std::map<std::string, std::vector<int32_t>> tokens;
  std::vector<float> logits;
  int64_t num_cached_tokens = 0, num_preemptions = 0;
  bool operator==(const TinyAnswers& other) const { return tokens == other.tokens && logits == other.logits; }
};
TinyAnswers answers_of(const EngineOptions& options);
// The same behind a prompt that the engine answers alone first: what it learns from its first step does not depend on
// how many of the few are waiting by then.
TinyAnswers answers_behind_first_prompt(const EngineOptions& options);
// The same asked again of the same engine, for tokens alone: `tokens` and num_cached_tokens.
TinyAnswers second_answers_of(const EngineOptions& options);

// The largest difference of any logit.
float largest_difference(const TinyAnswers& a, const TinyAnswers& b);

}  // namespace octet
