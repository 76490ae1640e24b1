#include "octet/checkpoint/config.h"

#include <cmath>
#include <filesystem>
#include <limits>

#include "octet/base/error.h"

namespace octet {
namespace {

constexpr int64_t kMaxConfigBytes = int64_t{64} << 20;  // quantization configs may name every module
// Far above any model, far below what overflows: hidden * vocabulary * 4 bytes fits 64 bits with room.
constexpr int64_t kMaxWidth = int64_t{1} << 20;
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxHeads = 1 << 14;
constexpr int64_t kMaxHeadDim = 1 << 14;
constexpr int64_t kMaxVocab = int64_t{1} << 24;
constexpr int64_t kMaxPositions = int64_t{1} << 30;

int64_t int_in_or(const JsonObject& object, std::string_view key, int64_t low, int64_t high, int64_t otherwise) {
  return object.find_raw(key) ? object.get_int_in(key, low, high) : otherwise;
}

// A finite number within (0, high].
double positive_or(const JsonObject& object, std::string_view key, double high, double otherwise) {
  const double value = object.find_number(key).value_or(otherwise);
  if (!std::isfinite(value) || value <= 0 || value > high) {
    fail(ErrorCode::kModel, "{}: {}: expected a number above 0 and at most {}, found {}", object.where(), key, high,
         value);
  }
  return value;
}

// An id, a list of ids, or nothing.
std::vector<int32_t> token_ids(const JsonObject& object, std::string_view key, int64_t vocab_size) {
  const Json* value = object.find_raw(key);
  if (!value) return {};
  std::vector<int32_t> ids;
  const auto add = [&](const Json& item) {
    if (!item.is_number_integer() || item < 0 || item >= vocab_size) {
      fail(ErrorCode::kModel, "{}: {}: expected token ids from 0 to {}, found {}", object.where(), key, vocab_size - 1,
           item.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 60));
    }
    ids.push_back(item.get<int32_t>());
  };
  if (value->is_array()) {
    for (const Json& item : *value) add(item);
  } else {
    add(*value);
  }
  return ids;
}

DType dtype_of(const JsonObject& object) {
  const char* key = object.find_raw("dtype") ? "dtype" : "torch_dtype";
  std::string name = object.find_string(key).value_or("float32");
  if (name.starts_with("torch.")) name = name.substr(6);
  if (name == "bfloat16") return DType::kBF16;
  if (name == "float16") return DType::kF16;
  if (name == "float32") return DType::kF32;
  fail(ErrorCode::kUnsupported, "{}: {}: \"{}\" is not supported; octet runs bfloat16, float16 and float32",
       object.where(), key, name);
}

// Fills rope_theta and rope_scaling from the three spellings: rope_parameters (transformers 5), rope_scaling with a
// type, or rope_theta alone. "default" means no scaling and becomes null.
void read_rope(const JsonObject& object, ModelConfig& config) {
  config.rope_theta = positive_or(object, "rope_theta", 1e12, 10000.0);
  const Json* parameters = object.find_raw("rope_parameters");
  const char* key = parameters ? "rope_parameters" : "rope_scaling";
  const Json* scaling = parameters ? parameters : object.find_raw("rope_scaling");
  if (!scaling) return;
  const JsonObject rope(*scaling, object.where() + ": " + key);
  if (rope.json().empty()) return;
  config.rope_theta = positive_or(rope, "rope_theta", 1e12, config.rope_theta);
  const std::optional<std::string> type =
      rope.find_raw("rope_type") ? rope.find_string("rope_type") : rope.find_string("type");
  if (!type && !parameters) fail(ErrorCode::kModel, "{}: rope_type is missing", rope.where());
  if (type && *type != "default") config.rope_scaling = *scaling;
}

// Mistral and Mixtral: an integer or null. Qwen2 and its kin: only with use_sliding_window, and only for layers from
// max_window_layers on: a window that no layer uses is none. Which layers of a mixture have it is read from `json` by
// the model's file.
std::optional<int64_t> read_sliding_window(const JsonObject& object, const ModelConfig& config) {
  if (!object.find_raw("sliding_window")) return std::nullopt;
  if (!object.find_bool("use_sliding_window").value_or(!config.model_type.starts_with("qwen"))) return std::nullopt;
  const int64_t window = object.get_int_in("sliding_window", 1, kMaxPositions);
  const int64_t first_layer = int_in_or(object, "max_window_layers", 0, kMaxLayers, 0);
  if (config.model_type.starts_with("qwen") && first_layer >= config.num_hidden_layers) return std::nullopt;
  return window;
}

void check_heads(const ModelConfig& config) {
  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    fail(ErrorCode::kModel, "{}: num_attention_heads {} is not a multiple of num_key_value_heads {}", config.path,
         config.num_attention_heads, config.num_key_value_heads);
  }
  if (config.head_dim % 2 != 0) fail(ErrorCode::kModel, "{}: head_dim {} is odd", config.path, config.head_dim);
}

int64_t read_head_dim(const JsonObject& object, const ModelConfig& config) {
  if (object.find_raw("head_dim")) return object.get_int_in("head_dim", 1, kMaxHeadDim);
  if (config.hidden_size % config.num_attention_heads != 0) {
    fail(ErrorCode::kModel, "{}: hidden_size {} is not a multiple of num_attention_heads {}, and head_dim is missing",
         config.path, config.hidden_size, config.num_attention_heads);
  }
  return config.hidden_size / config.num_attention_heads;
}

}  // namespace

std::string architecture_of(const Json& json, const std::string& path) {
  const JsonObject object(json, path);
  const Json* list = object.find_raw("architectures");
  if (!list || !list->is_array() || list->empty() || !list->front().is_string()) {
    fail(ErrorCode::kModel,
         "{}: architectures: expected a list with the name of the model's class, such as [\"LlamaForCausalLM\"]", path);
  }
  return list->front().get<std::string>();
}

const Json* ModelConfig::quantization_config() const {
  const auto found_in = [](const Json& object, const char* key) -> const Json* {
    const auto it = object.find(key);
    return it == object.end() || it->is_null() ? nullptr : &*it;
  };
  if (const Json* found = found_in(json, "quantization_config")) return found;
  if (!hf_quant_config.is_null()) return &hf_quant_config;
  if (const Json* text = found_in(json, "text_config"); text != nullptr && text->is_object()) {
    if (const Json* found = found_in(*text, "quantization_config")) return found;
  }
  return found_in(json, "compression_config");
}

ModelConfig ModelConfig::from_folder(const std::string& folder) {
  const std::string path = (std::filesystem::path(folder) / "config.json").string();
  if (!std::filesystem::exists(path))
    fail(ErrorCode::kModel, "{}: no config.json; is this a Hugging Face model folder?", folder);
  ModelConfig config = from_json(read_json_file(path, kMaxConfigBytes), path);
  const std::string modelopt = (std::filesystem::path(folder) / "hf_quant_config.json").string();
  if (std::filesystem::exists(modelopt)) config.hf_quant_config = read_json_file(modelopt, kMaxConfigBytes);
  return config;
}

ModelConfig ModelConfig::from_json(const Json& json, const std::string& path) {
  const JsonObject object(json, path);
  ModelConfig config;
  config.path = path;
  config.architecture = architecture_of(json, path);
  config.model_type = object.get_string("model_type");
  config.hidden_size = object.get_int_in("hidden_size", 1, kMaxWidth);
  config.intermediate_size = object.get_int_in("intermediate_size", 1, kMaxWidth);
  config.num_hidden_layers = object.get_int_in("num_hidden_layers", 1, kMaxLayers);
  config.num_attention_heads = object.get_int_in("num_attention_heads", 1, kMaxHeads);
  config.num_key_value_heads = int_in_or(object, "num_key_value_heads", 1, kMaxHeads, config.num_attention_heads);
  config.head_dim = read_head_dim(object, config);
  check_heads(config);
  config.vocab_size = object.get_int_in("vocab_size", 1, kMaxVocab);
  config.max_position_embeddings = object.get_int_in("max_position_embeddings", 1, kMaxPositions);
  config.rms_norm_eps = positive_or(object, "rms_norm_eps", 1.0, 1e-6);
  read_rope(object, config);
  config.hidden_act = object.find_string("hidden_act").value_or("silu");
  config.tie_word_embeddings = object.find_bool("tie_word_embeddings").value_or(false);
  config.sliding_window = read_sliding_window(object, config);
  config.dtype = dtype_of(object);
  config.bos_token_id = token_ids(object, "bos_token_id", config.vocab_size);
  config.eos_token_id = token_ids(object, "eos_token_id", config.vocab_size);
  if (const Json* quantization = object.find_raw("quantization_config"); quantization && !quantization->is_object()) {
    fail(ErrorCode::kModel, "{}: quantization_config: expected an object", path);
  }
  config.json = json;
  return config;
}

GenerationConfig GenerationConfig::from_folder(const std::string& folder) {
  const std::string path = (std::filesystem::path(folder) / "generation_config.json").string();
  if (!std::filesystem::exists(path)) return {};
  return from_json(read_json_file(path, kMaxConfigBytes), path);
}

GenerationConfig GenerationConfig::from_json(const Json& json, const std::string& path) {
  const JsonObject object(json, path);
  GenerationConfig config;
  config.temperature = object.find_number("temperature");
  config.top_p = object.find_number("top_p");
  config.min_p = object.find_number("min_p");
  config.repetition_penalty = object.find_number("repetition_penalty");
  config.top_k = object.find_int("top_k");
  config.max_new_tokens = object.find_int("max_new_tokens");
  config.eos_token_id = token_ids(object, "eos_token_id", kMaxVocab);
  return config;
}

}  // namespace octet
