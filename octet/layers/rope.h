// Rotary position embedding: the frequencies of every scaling that Hugging Face's modeling_rope_utils has for
// Llama-like models, and the table of one step's angles.
//
// rope_type (config.json: rope_scaling or rope_parameters): default, linear, llama3, yarn, dynamic. Others, longrope
// among them, are Error{kUnsupported}. Computed as Hugging Face does, in F32 where it uses F32.
//
// dynamic (NTK): Hugging Face recomputes the frequencies from the longest length seen so far and leaves keys in the
// cache as they were rotated. Here position p is always rotated with the frequencies of length max(p + 1,
// max_position_embeddings): the same when a sequence grows token by token, and independent of chunks and of the batch.
// It differs from Hugging Face for a *prompt* longer than max_position_embeddings, whose keys that rotates for the
// length of the whole prompt.
#pragma once

#include <vector>

#include "octet/checkpoint/config.h"
#include "octet/checkpoint/weights.h"
#include "octet/layers/step.h"

namespace octet {

struct RopeFrequencies {
  std::vector<float> inv_freq;    // one per rotated pair of head_dim
  float attention_factor = 1.0f;  // multiplies cos and sin
  float ntk_factor = 0.0f;        // dynamic NTK, else 0
  int64_t ntk_original_max = 0;
};
// Throws Error{kModel} or Error{kUnsupported} naming the field of config.json.
RopeFrequencies rope_frequencies(const ModelConfig& config);

// cos, sin f32 [T, R/2]: shared by the layers of one step.
struct RopeAngles {
  ConstTensor cos;
  ConstTensor sin;
};

class RotaryEmbedding {
 public:
  // weights: for memory only; nothing is read.
  RotaryEmbedding(const ModelConfig& config, const Weights& weights);
  RopeAngles operator()(Step& step) const;
  int64_t output_bytes(int64_t num_tokens) const;

 private:
  RopeFrequencies frequencies_;
  Tensor inv_freq_;
};

}  // namespace octet
