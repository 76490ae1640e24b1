// QuantConfig: which scheme each linear of a checkpoint uses. Made from the checkpoint's quantization_config (a
// dialect) and the user's `quantization` argument.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "octet/base/json.h"
#include "octet/quant/module_pattern.h"
#include "octet/quant/scheme.h"

namespace octet {

// How one linear is stored on disk and held in memory. `on_disk == in_memory` unless it is quantised while loading.
struct LinearScheme {
  const QuantScheme* on_disk = nullptr;
  const QuantScheme* in_memory = nullptr;
  enum class ActivationScale : uint8_t { kDynamic, kStatic } activation = ActivationScale::kDynamic;

  // What the linear wants as input: in_memory's, per tensor for static scales; not quantized() for a plain weight.
  QuantFormat activation_format() const;
};

struct QuantOptions {
  std::string quantization;         // "", "fp8" (= fp8_channel), "fp8_tensor", "fp8_channel"
  std::vector<std::string> ignore;  // modules left as they are: see module_pattern.h
  bool quantize_lm_head = false;    // option: FP8 lm_head too
};

class QuantConfig {
 public:
  // `quantization_config`: that object of config.json, or nullptr. Throws Error{kUnsupported} naming a quant_method,
  // scheme or field that octet does not know; Error{kModel} when the user's choice contradicts the file.
  QuantConfig(const Json* quantization_config, const QuantOptions& options, DType plain_dtype);

  // `module`: the linear's full name, "model.layers.0.self_attn.q_proj". Linears only; everything else stays plain.
  // lm_head is plain unless quantize_lm_head. The parts of a fused linear may differ: the caller checks.
  LinearScheme scheme_for(std::string_view module) const;
  // "fp8_channel, quantised while loading, activations dynamic per token; lm_head bf16": for the start-up report.
  std::string description() const;
  // kv cache scales etc. join here with the dialects.

 private:
  void read_fp8_dialect(const Json& config);
  void choose_online(const QuantOptions& options);

  const QuantScheme* plain_ = nullptr;
  const QuantScheme* online_ = nullptr;  // quantise plain weights with this while loading
  const QuantScheme* stored_ = nullptr;  // the checkpoint's own scheme
  LinearScheme::ActivationScale activation_ = LinearScheme::ActivationScale::kDynamic;
  std::vector<ModulePattern> ignore_;
  const QuantScheme* lm_head_ = nullptr;  // in memory
};

}  // namespace octet
