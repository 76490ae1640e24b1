// A tiny Llama for tests: only a config.json in a folder of its own; weights are dummies, seeded by their names.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <string>

#include "octet/base/file.h"
#include "octet/engine/engine.h"

namespace octet {

class TinyModel {
 public:
  static constexpr int32_t kVocabSize = 96;

  TinyModel()
      : folder_((std::filesystem::temp_directory_path() / ("octet_tiny_" + std::to_string(getpid()))).string()) {
    std::filesystem::create_directories(folder_);
    write_file(folder_ + "/config.json", R"({
      "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 96,
      "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 96,
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
