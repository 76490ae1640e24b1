// Model: what the engine runs. One file per architecture family in this folder; the folder is the registry: each
// <stem>.cc defines `extern const ModelArch k_<stem>;` and CMake generates the table of them.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "octet/checkpoint/config.h"
#include "octet/checkpoint/weights.h"
#include "octet/layers/linear.h"
#include "octet/layers/step.h"

namespace octet {

struct ModelLimits {
  int64_t max_model_len = 0;
};

// The layers that a model object has, of those of its config.
struct Stage {
  int64_t begin = 0, end = 0;
  int64_t num_layers = 0;  // of the whole model

  // Throws Error{kUsage} for a range that is empty or not the model's.
  Stage(const LayerRange& range, const ModelConfig& config);
  bool first() const { return begin == 0; }
  bool last() const { return end == num_layers; }
  // Whether a tensor called "<layers>.<n>..." is one of its layers'; true for any other name.
  bool may_have(std::string_view tensor, std::string_view layers) const;
};

class Model {
 public:
  virtual ~Model() = default;
  // Hidden states after the final norm [T, hidden_size] in the backend's activation dtype; lies in step.arena. Of a
  // stage that is not the last: the residual stream after its layers.
  virtual Tensor forward(Step& step) const = 0;
  // Of the last stage. Logits f32 [R, vocab_size] of rows of hidden states; gathered over ranks: every rank gets all
  // columns.
  virtual Tensor logits(Step& step, ConstTensor hidden_rows) const = 0;
  // KV layout of this rank, without block size and dtype (the engine's choice).
  virtual KvCacheLayout kv_layout() const = 0;
  // Arena bytes that a step of num_tokens tokens with num_logit_rows rows of logits needs at most.
  virtual int64_t activation_bytes(int64_t num_tokens, int64_t num_logit_rows) const = 0;
  virtual int64_t vocab_size() const = 0;
  // Every linear on this rank.
  using LinearRow = octet::LinearRow;
  virtual std::vector<LinearRow> linears() const = 0;
};

struct ModelArch {
  std::span<const std::string_view> architectures;  // names in config.json: "LlamaForCausalLM", ...
  // Reads the parameters through `weights`, of the layers that its source says, onto `backend`'s device.
  std::unique_ptr<Model> (*load)(const ModelConfig& config, const Weights& weights, const Backend& backend);
};

std::span<const ModelArch* const> model_archs();  // generated
// Throws Error{kUnsupported}: "architecture X is not supported; supported: ..." .
const ModelArch& find_arch(const ModelConfig& config);

}  // namespace octet
