#include "octet/checkpoint/gguf_llama.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>
#include <optional>
#include <set>

#include "octet/base/error.h"

namespace octet {
namespace {

constexpr int64_t kMaxWidth = int64_t{1} << 20;

const GgufTensor* find_tensor(const GgufFile& file, std::string_view name) {
  const auto it = std::find_if(file.tensors.begin(), file.tensors.end(),
                               [&](const GgufTensor& tensor) { return tensor.name == name; });
  return it == file.tensors.end() ? nullptr : &*it;
}

// One tensor of a layer, or of the model when the name does not start with "blk".
struct TensorRow {
  std::string gguf_name;
  std::string hf_name;
  Shape shape;
  int64_t permuted_heads = 0;
  enum class Presence : uint8_t { kRequired, kOptional } presence = Presence::kRequired;
};

std::vector<TensorRow> layer_rows(const LlamaDims& dims, int64_t layer) {
  const std::string from = fmt::format("blk.{}.", layer);
  const std::string to = fmt::format("model.layers.{}.", layer);
  const int64_t q = dims.num_attention_heads * dims.head_dim;
  const int64_t kv = dims.num_key_value_heads * dims.head_dim;
  const int64_t hidden = dims.hidden_size;
  const int64_t ffn = dims.intermediate_size;
  using enum TensorRow::Presence;
  return {
      {from + "attn_norm.weight", to + "input_layernorm.weight", {hidden}},
      {from + "attn_q.weight", to + "self_attn.q_proj.weight", {q, hidden}, dims.num_attention_heads},
      {from + "attn_k.weight", to + "self_attn.k_proj.weight", {kv, hidden}, dims.num_key_value_heads},
      {from + "attn_v.weight", to + "self_attn.v_proj.weight", {kv, hidden}},
      {from + "attn_output.weight", to + "self_attn.o_proj.weight", {hidden, q}},
      {from + "attn_q.bias", to + "self_attn.q_proj.bias", {q}, dims.num_attention_heads, kOptional},
      {from + "attn_k.bias", to + "self_attn.k_proj.bias", {kv}, dims.num_key_value_heads, kOptional},
      {from + "attn_v.bias", to + "self_attn.v_proj.bias", {kv}, 0, kOptional},
      {from + "attn_output.bias", to + "self_attn.o_proj.bias", {hidden}, 0, kOptional},
      {from + "ffn_norm.weight", to + "post_attention_layernorm.weight", {hidden}},
      {from + "ffn_gate.weight", to + "mlp.gate_proj.weight", {ffn, hidden}},
      {from + "ffn_up.weight", to + "mlp.up_proj.weight", {ffn, hidden}},
      {from + "ffn_down.weight", to + "mlp.down_proj.weight", {hidden, ffn}},
  };
}

// The rotation frequencies' divisors of Llama 3.1 (transformers' "llama3" rope type) for these parameters.
struct Llama3Rope {
  double factor = 8.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  double original_context = 8192.0;
};

double llama3_divisor(const Llama3Rope& rope, double theta, int64_t i, int64_t head_dim) {
  const double wavelength =
      2 * std::numbers::pi * std::pow(theta, 2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
  if (wavelength < rope.original_context / rope.high_freq_factor) return 1.0;
  if (wavelength > rope.original_context / rope.low_freq_factor) return rope.factor;
  const double smooth =
      (rope.original_context / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  return 1.0 / ((1.0 - smooth) / rope.factor + smooth);
}

// A GGUF file keeps Llama 3.1's scaling only as the divisor of each frequency. All its models share every parameter but
// the factor, which is the largest divisor; the others are taken when they give back the whole tensor.
Json rope_scaling_from_freqs(const GgufTensor& freqs, double theta, const LlamaDims& dims, const std::string& path) {
  const int64_t half = dims.head_dim / 2;
  if (freqs.type != GgufType::kF32 || freqs.shape.rank() != 1 || freqs.shape[0] != half) {
    fail(ErrorCode::kModel, "{}: rope_freqs.weight: expected F32 [{}], found {}", path, half, freqs.shape.to_string());
  }
  std::vector<float> divisors(static_cast<size_t>(half));
  dequantize_gguf(freqs, divisors);
  const Llama3Rope rope{.factor = std::round(static_cast<double>(*std::max_element(divisors.begin(), divisors.end())))};
  for (int64_t i = 0; i < half; ++i) {
    const double expected = llama3_divisor(rope, theta, i, dims.head_dim);
    const double found = divisors[static_cast<size_t>(i)];
    if (!(std::abs(found - expected) <= 1e-3 * expected)) {
      fail(ErrorCode::kUnsupported,
           "{}: rope_freqs.weight: divisor {} is {}, Llama 3.1's scaling has {}; octet converts no other scaling by "
           "frequency",
           path, i, found, expected);
    }
  }
  return {{"rope_type", "llama3"},
          {"factor", rope.factor},
          {"low_freq_factor", rope.low_freq_factor},
          {"high_freq_factor", rope.high_freq_factor},
          {"original_max_position_embeddings", static_cast<int64_t>(rope.original_context)}};
}

Json rope_scaling(const LlamaConfigParts& parts, double theta) {
  const GgufMetadata& metadata = parts.metadata;
  if (const GgufTensor* freqs = find_tensor(parts.file, "rope_freqs.weight"))
    return rope_scaling_from_freqs(*freqs, theta, parts.dims, metadata.path());
  const std::string* type = metadata.find_string("llama.rope.scaling.type");
  if (!type || *type == "none") return nullptr;
  if (*type != "linear" && *type != "yarn") {
    fail(ErrorCode::kUnsupported,
         "{}: llama.rope.scaling.type \"{}\" is not supported; octet converts none, linear and yarn", metadata.path(),
         *type);
  }
  Json scaling = {{"rope_type", *type}, {"factor", metadata.get_number("llama.rope.scaling.factor")}};
  if (*type == "linear") return scaling;
  if (const auto length = metadata.find_int("llama.rope.scaling.original_context_length"))
    scaling["original_max_position_embeddings"] = *length;
  constexpr std::pair<const char*, const char*> kYarn[] = {{"llama.rope.scaling.yarn_beta_fast", "beta_fast"},
                                                           {"llama.rope.scaling.yarn_beta_slow", "beta_slow"},
                                                           {"llama.rope.scaling.attn_factor", "attention_factor"}};
  for (const auto& [key, name] : kYarn) {
    if (const auto value = metadata.find_number(key)) scaling[name] = *value;
  }
  return scaling;
}

// The shortest decimal number that is this F32: 1e-05 rather than 9.999999747378752e-06, as config.json had it.
double shortest(double value) { return std::stod(fmt::format("{}", static_cast<float>(value))); }

std::string_view torch_name(DType dtype) {
  if (dtype == DType::kBF16) return "bfloat16";
  return dtype == DType::kF16 ? "float16" : "float32";
}

}  // namespace

LlamaDims llama_dims_from_gguf(const GgufMetadata& metadata, int64_t num_tokens) {
  const std::string& architecture = metadata.get_string("general.architecture");
  if (architecture != "llama") {
    fail(ErrorCode::kUnsupported,
         "{}: general.architecture \"{}\" is not supported; octet converts GGUF files of \"llama\"", metadata.path(),
         architecture);
  }
  if (metadata.find_int("llama.expert_count").value_or(0) > 0) {
    fail(ErrorCode::kUnsupported, "{}: llama.expert_count is above 0; octet converts no mixtures of experts from GGUF",
         metadata.path());
  }
  LlamaDims dims;
  dims.num_hidden_layers = metadata.get_int_in("llama.block_count", 1, 4096);
  dims.hidden_size = metadata.get_int_in("llama.embedding_length", 1, kMaxWidth);
  dims.intermediate_size = metadata.get_int_in("llama.feed_forward_length", 1, kMaxWidth);
  dims.num_attention_heads = metadata.get_int_in("llama.attention.head_count", 1, 1 << 14);
  const char* kv_key = "llama.attention.head_count_kv";
  dims.num_key_value_heads =
      metadata.has(kv_key) ? metadata.get_int_in(kv_key, 1, dims.num_attention_heads) : dims.num_attention_heads;
  const char* dim_key = "llama.attention.key_length";
  dims.head_dim =
      metadata.has(dim_key) ? metadata.get_int_in(dim_key, 2, 1 << 14) : dims.hidden_size / dims.num_attention_heads;
  const bool whole = metadata.has(dim_key) || dims.hidden_size % dims.num_attention_heads == 0;
  if (!whole || dims.head_dim < 2 || dims.head_dim % 2 != 0 ||
      dims.num_attention_heads % dims.num_key_value_heads != 0) {
    fail(ErrorCode::kModel, "{}: {} heads, {} key-value heads and width {} do not divide", metadata.path(),
         dims.num_attention_heads, dims.num_key_value_heads, dims.hidden_size);
  }
  const int64_t rotated = metadata.find_int("llama.rope.dimension_count").value_or(dims.head_dim);
  const int64_t value_length = metadata.find_int("llama.attention.value_length").value_or(dims.head_dim);
  if (rotated != dims.head_dim || value_length != dims.head_dim) {
    fail(ErrorCode::kUnsupported, "{}: heads of {} with {} rotated and values of {}; LlamaForCausalLM has them equal",
         metadata.path(), dims.head_dim, rotated, value_length);
  }
  dims.vocab_size = num_tokens;
  return dims;
}

std::vector<LlamaTensor> llama_tensors_from_gguf(const GgufFile& file, const LlamaDims& dims, const std::string& path) {
  std::vector<TensorRow> rows = {
      {"token_embd.weight", "model.embed_tokens.weight", {dims.vocab_size, dims.hidden_size}}};
  for (int64_t layer = 0; layer < dims.num_hidden_layers; ++layer) {
    for (TensorRow& row : layer_rows(dims, layer)) rows.push_back(std::move(row));
  }
  rows.push_back({"output_norm.weight", "model.norm.weight", {dims.hidden_size}});
  rows.push_back(
      {"output.weight", "lm_head.weight", {dims.vocab_size, dims.hidden_size}, 0, TensorRow::Presence::kOptional});

  std::map<std::string_view, const GgufTensor*> by_name;
  for (const GgufTensor& tensor : file.tensors) by_name.emplace(tensor.name, &tensor);
  std::vector<LlamaTensor> tensors;
  for (TensorRow& row : rows) {
    const auto it = by_name.find(row.gguf_name);
    if (it == by_name.end()) {
      if (row.presence == TensorRow::Presence::kOptional) continue;
      fail(ErrorCode::kModel, "{}: {} is missing", path, row.gguf_name);
    }
    if (!(it->second->shape == row.shape)) {
      fail(ErrorCode::kModel, "{}: {}: shape {}, the metadata says {}", path, row.gguf_name,
           it->second->shape.to_string(), row.shape.to_string());
    }
    tensors.push_back({.source = it->second, .name = std::move(row.hf_name), .permuted_heads = row.permuted_heads});
    by_name.erase(it);
  }
  by_name.erase("rope_freqs.weight");
  if (!by_name.empty()) {
    fail(ErrorCode::kUnsupported, "{}: {} has no place in LlamaForCausalLM ({} such tensors)", path,
         by_name.begin()->first, by_name.size());
  }
  return tensors;
}

int64_t unpermuted_source_row(int64_t row, int64_t head_dim) {
  const int64_t head = row / head_dim;
  const int64_t within = row % head_dim;
  const int64_t half = head_dim / 2;
  return head * head_dim + within % half * 2 + within / half;
}

Json llama_config_from_gguf(const LlamaConfigParts& parts) {
  const LlamaDims& dims = parts.dims;
  const GgufMetadata& metadata = parts.metadata;
  const double theta = shortest(metadata.find_number("llama.rope.freq_base").value_or(10000.0));
  Json config = {{"architectures", Json::array({"LlamaForCausalLM"})},
                 {"model_type", "llama"},
                 {"attention_bias", find_tensor(parts.file, "blk.0.attn_q.bias") != nullptr},
                 {"hidden_act", "silu"},
                 {"hidden_size", dims.hidden_size},
                 {"intermediate_size", dims.intermediate_size},
                 {"num_hidden_layers", dims.num_hidden_layers},
                 {"num_attention_heads", dims.num_attention_heads},
                 {"num_key_value_heads", dims.num_key_value_heads},
                 {"head_dim", dims.head_dim},
                 {"vocab_size", dims.vocab_size},
                 {"max_position_embeddings", metadata.get_int_in("llama.context_length", 1, int64_t{1} << 30)},
                 {"rms_norm_eps", shortest(metadata.get_number("llama.attention.layer_norm_rms_epsilon"))},
                 {"rope_theta", theta},
                 {"rope_scaling", rope_scaling(parts, theta)},
                 {"tie_word_embeddings", find_tensor(parts.file, "output.weight") == nullptr},
                 {"torch_dtype", torch_name(parts.dtype)}};
  if (parts.tokenizer.bos_token_id >= 0) config["bos_token_id"] = parts.tokenizer.bos_token_id;
  if (!parts.tokenizer.eos_token_ids.empty()) config["eos_token_id"] = parts.tokenizer.eos_token_ids.front();
  return config;
}

}  // namespace octet
