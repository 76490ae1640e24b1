// QuantConfig: which scheme each linear of a checkpoint uses. Made from the checkpoint's quantization_config (a
// dialect) and the user's `quantization` argument.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "octet/base/json.h"
#include "octet/quant/dialect.h"
#include "octet/quant/module_pattern.h"
#include "octet/quant/scheme.h"

namespace octet {

struct QuantOptions {
  std::string quantization;         // "", "fp8" (= fp8_channel), "fp8_channel", "fp8_tensor", "fp8_block", "int8"
  std::vector<std::string> ignore;  // modules left as they are: see module_pattern.h
  bool quantize_lm_head = false;    // option: FP8 lm_head too
};

class QuantConfig {
 public:
  // `quantization_config`: that object of config.json, or nullptr. Throws Error{kUnsupported} naming a quant_method,
  // scheme or field that octet does not know; Error{kModel} when the user's choice contradicts the file.
  QuantConfig(const Json* quantization_config, const QuantOptions& options, DType plain_dtype);

  // `module`: the linear's full name, "model.layers.0.self_attn.q_proj". Linears only; everything else stays plain.
  // `stored`: the dtype of its weight in the file, if there is one. lm_head is plain unless quantize_lm_head or unless
  // the file has it in 8 bits. The parts of a fused linear may differ: the caller checks.
  LinearScheme scheme_for(std::string_view module, std::optional<DType> stored = std::nullopt) const;
  // What the checkpoint says about its KV cache.
  const std::optional<KvCacheQuant>& kv_cache() const { return kv_cache_; }
  // "fp8_channel, quantised while loading, activations dynamic per token; lm_head bf16": for the start-up report.
  std::string description() const;

 private:
  void choose_online(const QuantOptions& options);
  LinearScheme plain() const { return {.on_disk = plain_, .in_memory = plain_, .activation = {}}; }

  const QuantScheme* plain_ = nullptr;
  const QuantScheme* online_ = nullptr;    // quantise plain weights with this while loading
  std::optional<CheckpointQuant> stored_;  // what the checkpoint says
  std::optional<KvCacheQuant> kv_cache_;
  std::vector<ModulePattern> ignore_;     // the user's
  const QuantScheme* lm_head_ = nullptr;  // in memory
};

}  // namespace octet
