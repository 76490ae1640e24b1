// ModelConfig: what config.json says, under Hugging Face's names, checked. The ~20 fields all decoders share; an
// architecture's own keys are read from `json` by its file in octet/models. Never changed after reading.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "octet/base/json.h"
#include "octet/tensor/dtype.h"

namespace octet {

// architectures[0] of config.json: what says whether octet knows the model, before any other field is asked for.
// Throws Error{kModel} when it is absent.
std::string architecture_of(const Json& json, const std::string& path);

struct ModelConfig {
  std::string path;          // of config.json, for errors
  std::string architecture;  // architectures[0], e.g. "LlamaForCausalLM"
  std::string model_type;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;  // = num_attention_heads when absent
  int64_t head_dim = 0;             // = hidden_size / num_attention_heads when absent
  int64_t vocab_size = 0;
  int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000.0;  // also from rope_parameters (transformers 5)
  Json rope_scaling;            // null or the object (rope_scaling or rope_parameters), "rope_type" or "type"
  std::string hidden_act = "silu";
  bool tie_word_embeddings = false;
  std::optional<int64_t> sliding_window;  // nothing when null, or when use_sliding_window is false
  DType dtype = DType::kBF16;             // torch_dtype / dtype; f32 when absent, as in Hugging Face
  std::vector<int32_t> bos_token_id;
  std::vector<int32_t> eos_token_id;
  Json json;             // the whole document
  Json hf_quant_config;  // ModelOpt's file beside it, or null

  // What says how the weights are quantised, or nullptr: quantization_config of config.json, hf_quant_config.json,
  // text_config's quantization_config, or compression_config, in this order.
  const Json* quantization_config() const;
  // config.json of a folder. Every integer is range-checked, cross-checked (heads divide, head_dim even, ...) before
  // anything is allocated. Throws Error{kModel} naming the field.
  static ModelConfig from_folder(const std::string& folder);
  static ModelConfig from_json(const Json& json, const std::string& path);
};

// generation_config.json: sampling defaults and stop ids. Absent file: all empty.
struct GenerationConfig {
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<int64_t> top_k, max_new_tokens;
  std::vector<int32_t> eos_token_id;
  static GenerationConfig from_folder(const std::string& folder);
  static GenerationConfig from_json(const Json& json, const std::string& path);
};

}  // namespace octet
