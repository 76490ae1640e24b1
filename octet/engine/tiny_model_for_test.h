// A tiny Llama for tests: only a config.json in a folder of its own; weights are dummies, seeded by their names.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>

#include "octet/base/file.h"
#include "octet/engine/engine.h"

namespace octet {

class TinyModel {
 public:
  static constexpr int32_t kVocabSize = 96;
  static constexpr std::string_view kLlama = R"("architectures": ["LlamaForCausalLM"], "model_type": "llama",
      "num_key_value_heads": 2)";

  // architecture: the keys of config.json that are not common to all tiny models.
  explicit TinyModel(std::string_view architecture = kLlama)
      : folder_((std::filesystem::temp_directory_path() / "octet_tiny_XXXXXX").string()) {
    if (mkdtemp(folder_.data()) == nullptr) throw std::runtime_error("cannot make " + folder_);
    write_file(folder_ + "/config.json", "{" + std::string(architecture) + R"(, "hidden_size": 64,
      "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 96,
      "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
      "tie_word_embeddings": false, "torch_dtype": "float32"})");
  }
  ~TinyModel() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  TinyModel(const TinyModel&) = delete;
  TinyModel& operator=(const TinyModel&) = delete;

  EngineOptions options() const {
    EngineOptions options;
    options.model_folder = folder_;
    options.device = "cpu";
    options.block_size = 4;
    options.max_num_seqs = 16;
    options.max_num_batched_tokens = 64;
    options.num_threads = 1;
    options.dummy_weights = true;
    return options;
  }

 private:
  std::string folder_;
};

}  // namespace octet
