// Pooling: one vector of a text, made of its tokens' hidden states.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace octet {

enum class PoolingType : uint8_t { kLast, kMean };

// How a model's vectors are made where a request does not say otherwise.
struct PoolingChoice {
  PoolingType type = PoolingType::kLast;
  bool normalize = true;  // to length 1

  // What sentence-transformers' files in the model's folder say (modules.json and its Pooling module's config.json);
  // without them the last token's state, normalised, as vLLM has it for decoders. Throws Error{kUnsupported} for other
  // ways of pooling, Error{kModel} for files that are not what they should be.
  static PoolingChoice of_folder(const std::string& folder);
  // vLLM's --pooler-config over `defaults`: pooling_type (or seq_pooling_type) "LAST" or "MEAN", normalize (or
  // use_activation). Throws Error{kUsage}.
  static PoolingChoice of_config(const std::string& json, PoolingChoice defaults);
};

// Takes hidden states [hidden_size] position by position; each position once.
class Pooler {
 public:
  explicit Pooler(PoolingType type) : type_(type) {}

  void add(std::span<const float> hidden);
  // kMean: the mean of all, summed in F64; kLast: the one that came last. Empty when nothing came.
  std::vector<float> pooled() const;

 private:
  PoolingType type_;
  int64_t count_ = 0;
  std::vector<double> sum_;  // kLast: the last one
};

// The vector cut to its first `dimensions` (0: all), then brought to length 1 if asked for; a zero vector stays one.
std::vector<float> finished_embedding(std::span<const float> pooled, int64_t dimensions, bool normalize);

}  // namespace octet
