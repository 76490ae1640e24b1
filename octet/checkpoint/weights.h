// Weights: a cursor over a checkpoint's tensors, `w / "model" / "layers" / 0 / "self_attn"`. Layers ask it for their
// parameters by name, shape and shard; it reads only this rank's bytes, fuses, quantises while loading, and accounts
// for everything: at the end it reports tensors that nobody asked for and parameters that nobody found.
//
// Memory: a tensor is copied or quantised straight from the mapped file and its pages are dropped after that, so
// loading needs the model as it will be plus one tensor. What is missing is recorded in WeightSource::missing and left
// undefined, so that one run reports everything; a wrong shape or dtype throws Error{kModel} at once:
//   "model.layers.3.mlp.up_proj.weight: shape [11008, 4096], config says [14336, 4096]"
//
// Dummy weights (files == nullptr): uniform in [-0.05, 0.05] by name and index, norms one: the same on any number of
// ranks. Or tiled (WeightSource::Dummies).
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "octet/base/thread_pool.h"
#include "octet/checkpoint/safetensors.h"
#include "octet/quant/quant_config.h"
#include "octet/tensor/quant_format.h"

namespace octet {

class DummyTile;

enum class Shard : uint8_t {
  kReplicated,
  kColumn,  // this rank's rows of [N, K] (output channels)
  kRow,     // this rank's columns of [N, K] (input channels)
};

// Host memory to write a parameter in: the caller makes Buffers; this folder may not use device.
using Allocate = std::function<Tensor(DType dtype, Shape shape, std::string_view name)>;
// The parameter written there, where kernels read it: on the CPU that memory itself, on a GPU a copy. Each is placed
// once, and its host memory not touched afterwards.
using Place = std::function<Tensor(Tensor written)>;

// What a fused linear needs to load: its parts are stacked along N.
struct LinearPart {
  std::string name;       // "q_proj", relative to the cursor; also what quantisation rules match
  int64_t n = 0;          // full (unsharded) output channels
  int64_t first_n = 0;    // first row this rank takes
  int64_t local_n = 0;    // rows this rank takes; those at n and beyond are zeros (a padded vocabulary)
  std::string stored_as;  // full name of the tensors on disk when it is another (tied lm_head); empty: prefix and name
  // A weight that is part of a stack [E, rows, k] of all experts, in one tensor on disk of that full name: it begins at
  // row first_row of [E * rows, k]. Real numbers only.
  struct Stack {
    std::string tensor;
    Shape shape;
    int64_t first_row = 0;
  };
  std::optional<Stack> stack = {};
};
struct LinearRequest {
  std::vector<LinearPart> parts;
  int64_t k = 0;  // full input channels; kRow: each rank takes k / world_size of them, in rank order
  Shard shard = Shard::kReplicated;
  bool bias = false;  // read <part>.bias as well
  // Left as it is, whatever is quantised, unless the file has it in 8 bits: routers and gates, whose small errors send
  // tokens elsewhere.
  bool keep_plain = false;
};
// One linear, or a stack of E: every tensor then has E as its first dimension (those of one element have E of them).
struct LoadedLinear {
  // [sum local_n, local_k]. Each part keeps its own scale, per-tensor ones expanded to one per channel where there are
  // several parts: lossless. Plain in source.plain_dtype when parts disagree about their scheme.
  QuantTensor weight;
  Tensor bias;             // f32 [sum local_n] or empty (also for kRow on all ranks but the first: outputs are summed)
  QuantFormat activation;  // what the linear wants as input
  // f32 [1] for static activations, else empty. The parts share one input tensor, so they share one scale: the largest
  // of the parts' input scales, with a warning when they differ (calibration of one tensor gives equal ones). Weights
  // are not touched.
  Tensor input_scale;
  Tensor input_zero_point;  // i32 [1] where activation.zero_point and it is static, else empty
};

// Layers of a model, [begin, end): those that a rank has when a model is cut into stages, each of which hands its
// residual stream to the next. The one with layer 0 embeds tokens, the one with the last layer has the final norm and
// the output projection.
struct LayerRange {
  int64_t begin = 0;
  int64_t end = std::numeric_limits<int64_t>::max();  // the model's number of layers, if that is less
};

// A matrix on disk that holds, head after head, rows that make keys and rows that make values of a compressed vector:
// kv_b_proj of latent attention. One part.
struct HeadProjectionsRequest {
  LinearRequest linear;
  int64_t num_heads = 0;  // on this rank
  int64_t key_dim = 0;    // rows of a head that come first
};
// In source.plain_dtype, whatever the file has.
struct HeadProjections {
  std::string name;
  Tensor key = {};    // [H, K, key_dim]: transposed
  Tensor value = {};  // [H, other rows of a head, K]
};

// One checkpoint being loaded by one rank: shared by all cursors.
struct WeightSource {
  // kRecord: everything is checked, counted and accounted for, but no tensor's bytes are read and no memory that
  // `allocate` gives is written, except vectors of at most kMaxRecordedBytes. How reports learn a model's layout from
  // the model itself.
  enum class Mode : uint8_t { kLoad, kRecord } mode = Mode::kLoad;
  static constexpr int64_t kMaxRecordedBytes = int64_t{1} << 20;
  const SafetensorsFolder* files = nullptr;  // nullptr: dummy weights (random, seeded by name)
  const QuantConfig* quant = nullptr;
  ThreadPool* threads = nullptr;
  Allocate allocate;
  Place place = [](Tensor written) { return written; };
  // How dummy weights are made: each element from its name and place, or as stretches of one random tile, at the speed
  // of memory, and then quantised weights as random codes.
  enum class Dummies : uint8_t { kByElement, kTiled } dummies = Dummies::kByElement;
  DType plain_dtype = DType::kBF16;  // unquantised weights are held in this (converted when the file differs)
  int rank = 0;
  int world_size = 1;
  LayerRange layers;
  // How the experts of a mixture are spread over ranks: each rank has a share of every expert's intermediate channels,
  // or whole experts. Where the channels do not divide it has whole experts.
  enum class ExpertSplit : uint8_t { kChannels, kExperts } expert_split = ExpertSplit::kChannels;
  // Whether the ranks of a row-parallel linear agree on a token's dynamic scale, so that their codes are those of one
  // rank: that takes asking all of them before every such linear. If not, each has the scale of its own columns.
  bool shares_token_scales = true;
  // Elementwise maximum over ranks, so that weights quantised while loading have the scales that one rank would give
  // them. Every rank makes the same calls in the same order. The identity for one rank.
  std::function<void(std::span<float> values)> all_reduce_max = [](std::span<float>) {};
  // Whether a linear [n, k] in these formats has a kernel worth running. One that has none is held in plain_dtype, if
  // that has one, and counted in `dequantised`. Empty: everything runs.
  std::function<bool(const QuantFormat& weight, const QuantFormat& activation, int64_t n, int64_t k)> runs_fast;
  // Bytes of the checkpoint that this rank has just read.
  std::function<void(int64_t bytes)> on_progress = [](int64_t) {};

  // Bookkeeping, filled by the cursors.
  std::set<std::string, std::less<>> consumed;
  std::vector<std::string> missing;
  std::set<std::string, std::less<>> found_plain;  // modules not in 8 bits although quantization_config says so
  std::map<std::string, int64_t> dequantised;  // formats without a fast kernel -> linears held in plain_dtype instead
  int64_t weight_bytes = 0;                    // as allocated, scales included
  int64_t scale_bytes = 0;
  std::shared_ptr<const DummyTile> dummy_tile;  // made when first used
};

class Weights {
 public:
  explicit Weights(WeightSource& source, std::string prefix = "") : source_(source), prefix_(std::move(prefix)) {}
  Weights operator/(std::string_view name) const;
  Weights operator/(int64_t index) const { return *this / std::string_view(std::to_string(index)); }

  const std::string& prefix() const { return prefix_; }
  WeightSource& source() const { return source_; }
  bool has(std::string_view name) const;
  // The full name of a tensor: "model.norm" + "weight" -> "model.norm.weight".
  std::string full_name(std::string_view name) const;

  // A plain parameter [shape], whole on every rank, converted to `dtype`: norms (f32).
  Tensor parameter(std::string_view name, Shape shape, DType dtype) const;
  // Rows [first, first + count) of a matrix of full shape [n, k]; rows beyond n are zeros.
  Tensor parameter_rows(std::string_view name, Shape full_shape, int64_t first, int64_t count, DType dtype) const;
  LoadedLinear linear(const LinearRequest& request) const;
  // Linears of one shape as one stack, called `name`: each keeps its own scales. In source.plain_dtype when they
  // disagree about their scheme.
  LoadedLinear stack(std::span<const LinearRequest> requests, std::string_view name) const;

  HeadProjections head_projections(const HeadProjectionsRequest& request) const;

  // The names of the checkpoint's tensors below this cursor, without its prefix.
  std::vector<std::string_view> names() const;
  // Other ranks read the tensors below this cursor: they are no left-overs.
  void leave_to_other_ranks() const;

 private:
  WeightSource& source_;
  std::string prefix_;
};

// Throws Error{kModel} when parameters are missing (lists up to 20 by name) or when tensors are left over that no layer
// asked for, except those `ignorable` accepts (rotary inv_freq buffers, tied lm_head, ...).
void check_all_consumed(const WeightSource& source, const std::function<bool(std::string_view)>& ignorable);

// One warning for all linears that are held in plain_dtype because their own formats have no fast kernel.
void warn_of_dequantised(const WeightSource& source);

}  // namespace octet
