// Linear layers over one fused weight [N, K]. A linear tells its producer in which format it wants its input: producers
// (norms, attention, activations) write that format, FP8 with its scale included, so that nothing is quantised twice.
#pragma once

#include <string>

#include "octet/checkpoint/weights.h"
#include "octet/layers/step.h"

namespace octet {

// [T, K] as the consuming linear wants it.
using Activation = ConstQuantTensor;

// (module, weight format, activation format, N, K) of a linear on this rank: for reports. An expert's linears are one
// row: "...experts.*.{gate_proj,up_proj}", `count` of them.
struct LinearRow {
  std::string module;
  QuantFormat weight;
  QuantFormat activation;
  int64_t n = 0;
  int64_t k = 0;
  int64_t count = 1;
};

// "model.layers.0.self_attn.{q_proj,k_proj,v_proj}": the parts of a fused linear in one name.
std::string linear_name(const Weights& weights, std::span<const LinearPart> parts);

// Arena memory for [rows, cols] in a dynamic format: data, scales, zero points; and its bytes.
QuantTensor make_dynamic(Step& step, const QuantFormat& format, int64_t rows, int64_t cols);
int64_t dynamic_bytes(const QuantFormat& format, int64_t rows, int64_t cols);
// Whether the scale of a row is one number whose maximum over ranks is the scale of the whole row. Groups lie on one
// rank each; with zero points every rank has a range of its own: its share of the sum is scaled before it is added.
bool has_shareable_scale(const QuantFormat& format);
// x [T, K], of which every rank has its own columns, in a format of which that holds: with the scales of whole rows.
void quantize_with_shared_scales(Step& step, ConstTensor x, const QuantTensor& out);

// The output [T, H] of a row-parallel linear: this rank's share of a sum over ranks, which the next norm adds to the
// residual. One block of memory for a whole forward pass: it is read before it is written again.
class Partial {
 public:
  // Memory for [T, hidden_size]; nothing to add yet.
  static Partial none(Step& step, int64_t hidden_size);
  // Where a linear writes its share.
  Tensor fill() {
    filled_ = true;
    return memory_;
  }
  // This rank's share, of which there may be nothing yet.
  bool filled() const { return filled_; }
  Tensor share() const { return memory_; }
  static int64_t num_bytes(int64_t num_tokens, int64_t hidden_size);

 private:
  Tensor memory_;
  bool filled_ = false;
};

class Linear {
 public:
  Linear(const Weights& weights, const LinearRequest& request);

  // Arena memory for an input of num_rows rows: data, and scale where the format has one.
  QuantTensor make_input(Step& step, int64_t num_rows) const;
  int64_t input_bytes(int64_t num_rows) const;  // at most, in the arena
  // x [T, K] f32|bf16 as this linear wants it: x itself, or quantised to make_input's memory.
  Activation input_of(Step& step, ConstTensor x) const;

  // What reports show: "model.layers.0.self_attn.qkv_proj" is named by its parts,
  // "...self_attn.{q_proj,k_proj,v_proj}".
  const std::string& name() const { return name_; }
  const QuantFormat& weight_format() const { return loaded_.weight.format; }
  const QuantFormat& activation_format() const { return loaded_.activation; }
  int64_t n() const { return loaded_.weight.data.dim(0); }
  int64_t k() const { return loaded_.weight.data.dim(1); }
  LinearRow row() const {
    return {.module = name_, .weight = weight_format(), .activation = activation_format(), .n = n(), .k = k()};
  }

 protected:
  // out [T, N] = x [T, K] * weight^T + bias
  void multiply(Step& step, const Activation& x, Tensor out) const;
  // True when x is dynamic per token and its columns lie on several ranks: its scale is known only after asking them
  // all, so the producer writes plain values.
  bool shares_token_scale() const { return shares_token_scale_; }

 private:
  std::string name_;
  LoadedLinear loaded_;
  bool shares_token_scale_ = false;
};

// Replicated, or split along N: out [T, N of this rank] is this rank's own.
class ColumnLinear : public Linear {
 public:
  using Linear::Linear;
  Tensor operator()(Step& step, const Activation& x) const;
  // The same into given memory, f32 or bf16 [T, N].
  void multiply_into(Step& step, const Activation& x, Tensor out) const { multiply(step, x, out); }
  int64_t output_bytes(int64_t num_rows) const;
};

// Split along K: every rank multiplies its columns, the outputs are to be summed.
class RowLinear : public Linear {
 public:
  using Linear::Linear;
  void operator()(Step& step, const Activation& x, Partial& out) const;
  int64_t scratch_bytes(int64_t num_rows) const;  // at most, in the arena, during a call
};

// silu(gate) * up of one fused weight [2 I, K], written as `consumer` wants it.
class GatedLinear : public Linear {
 public:
  using Linear::Linear;
  Activation operator()(Step& step, const Activation& x, const Linear& consumer) const;
  int64_t scratch_bytes(int64_t num_rows) const;
};

// Bytes of an arena tensor with its alignment, for upper bounds; f32 is the widest activation.
int64_t arena_bytes(int64_t num_elements, int64_t element_bytes = 4);

}  // namespace octet
