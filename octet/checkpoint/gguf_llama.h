// llama.cpp's "llama" architecture under Hugging Face's names: config.json and the tensors of LlamaForCausalLM.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "octet/base/json.h"
#include "octet/checkpoint/gguf_metadata.h"
#include "octet/checkpoint/gguf_tokenizer.h"

namespace octet {

struct LlamaDims {
  int64_t num_hidden_layers = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab_size = 0;
};

// Range-checked. Throws Error{kUnsupported} for another architecture, experts, partial rotation.
LlamaDims llama_dims_from_gguf(const GgufMetadata& metadata, int64_t num_tokens);

struct LlamaTensor {
  const GgufTensor* source = nullptr;
  std::string name;            // Hugging Face's
  int64_t permuted_heads = 0;  // > 0: rows were permuted head by head for llama.cpp's rotation
};

// In the order of the model; every shape is checked against `dims`. Throws Error{kModel} for missing tensors and wrong
// shapes, Error{kUnsupported} naming a tensor that Llama has no place for. rope_freqs.weight is read by the config.
std::vector<LlamaTensor> llama_tensors_from_gguf(const GgufFile& file, const LlamaDims& dims, const std::string& path);

// Where llama.cpp keeps row `row` of a matrix whose heads it permuted: it interleaves the two halves of each head, so
// that row i of the first half and row i of the second become rows 2i and 2i + 1.
int64_t unpermuted_source_row(int64_t row, int64_t head_dim);

struct LlamaConfigParts {
  const GgufFile& file;
  const GgufMetadata& metadata;
  const LlamaDims& dims;
  const GgufTokenizer& tokenizer;
  DType dtype = DType::kBF16;
};
Json llama_config_from_gguf(const LlamaConfigParts& parts);

}  // namespace octet
