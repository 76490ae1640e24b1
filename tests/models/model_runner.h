// One rank that runs a Model on given tokens, for the tests of this folder: weights, kernels, cache and arena without
// an engine.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "octet/checkpoint/safetensors.h"
#include "octet/device/comm.h"
#include "octet/device/stream.h"
#include "octet/kernels/backends.h"
#include "octet/models/model.h"
#include "octet/quant/quant_config.h"

namespace octet {

// What tests choose. Block size 4 and blocks out of order, so that the block table matters.
struct RunnerOptions {
  std::string folder;
  DType plain_dtype = DType::kF32;
  DType kv_dtype = DType::kF32;
  QuantOptions quant;
  KernelSelection kernels = KernelSelection::kReferenceOnly;
  Device device;  // a GPU: its table, whatever `kernels` says, in BF16
  int num_sequences = 1;
  int max_length = 128;
  int max_step_tokens = 128;
  bool dummy_weights = false;
  LayerRange layers;
  WeightSource::ExpertSplit expert_split = WeightSource::ExpertSplit::kChannels;
  bool only_plain_runs_fast = false;  // as if no fast kernel took a quantised weight
};

// Some tokens of one sequence, following those it has seen.
struct Piece {
  int sequence = 0;
  std::vector<int32_t> tokens;
};

class ModelRunner {
 public:
  // comm: nullptr for one rank.
  explicit ModelRunner(const RunnerOptions& options, Comm* comm = nullptr);

  // One step. Returns the logits of every token, row after row. `residual`: what the stage before gave.
  std::vector<float> step(const std::vector<Piece>& pieces, Tensor residual = {});
  // The same without logits: what the model's layers leave; valid until the next step.
  Tensor forward(const std::vector<Piece>& pieces, Tensor residual = {});
  // The prompt in pieces of `chunk` tokens, then greedy tokens one by one.
  std::vector<int32_t> generate(const std::vector<int32_t>& prompt, int chunk, int num_new, int sequence = 0);
  int64_t length(int sequence) const { return lengths_.at(static_cast<size_t>(sequence)); }

  const Model& model() const { return *model_; }
  int64_t vocab_size() const { return config_.vocab_size; }
  const ModelConfig& config() const { return config_; }
  const WeightSource& weights() const { return source_; }
  // Every parameter by the name it was allocated under, as written on the host.
  const std::map<std::string, Tensor>& parameters() const { return parameters_; }
  int64_t peak_bytes() const { return arena_->peak_bytes(); }
  std::function<void(std::string_view, ConstTensor)> observe, observe_input;

 private:
  Tensor integers(const std::vector<int32_t>& values, Shape shape);
  Tensor on_device(ConstTensor tensor, std::string_view name);
  std::vector<float> on_host(ConstTensor matrix) const;
  Batch make_batch(const std::vector<Piece>& pieces);
  Step make_step(const std::vector<Piece>& pieces, Tensor residual);

  static constexpr int64_t kBlockSize = 4;
  RunnerOptions options_;
  std::unique_ptr<Comm> single_;
  Comm* comm_;
  ThreadPool threads_{1};
  ThreadScratch scratch_{1};
  StreamOwner stream_;
  Buffer workspace_;
  Backend backend_;
  ModelConfig config_;
  QuantConfig quant_;
  std::optional<SafetensorsFolder> files_;
  std::deque<Buffer> buffers_;
  std::map<std::string, Tensor> parameters_;
  WeightSource source_;
  std::unique_ptr<Model> model_;
  std::optional<KvCache> kv_;
  std::optional<Arena> arena_;
  std::deque<std::vector<int32_t>> integers_;  // of the step under way
  std::deque<Buffer> integers_on_device_;
  std::vector<int64_t> lengths_;
};

// The folder of a recorded variant, and one of its recordings.
std::string golden_folder(const std::string& variant);
class Recording {
 public:
  Recording(const std::string& variant, const std::string& file);
  std::vector<float> floats(const std::string& name) const;
  std::vector<int32_t> integers(const std::string& name) const;
  const Json& json() const { return header_; }

 private:
  struct Part {
    DType dtype;
    int64_t begin, end;
  };
  std::string bytes_;
  Json header_;
  Part part(const std::string& name) const;
};

// The largest over rows of max |a - b| / max |b|.
double row_error(const std::vector<float>& a, const std::vector<float>& b, int64_t columns);
// That of every row.
std::vector<double> row_errors(const std::vector<float>& a, const std::vector<float>& b, int64_t columns);
std::vector<float> to_floats(ConstTensor matrix);

// `tokens` as sequences 0, 1, ... of `length` tokens each.
std::vector<Piece> pieces_of(const std::vector<int32_t>& tokens, int length);
// For FP8 activations: two computations of one model differ in the last bits of F32, and now and then that moves a
// value over a rounding boundary of E4M3 (a sixteenth of it), after which everything that depends on it differs by
// about as much as FP8 differs from F32. In many short sequences such a flip reaches few rows. So: nine rows in ten
// agree as in F32 (1e-4), and none is farther off than FP8 itself is (a quarter).
void expect_same_but_for_flips(const std::vector<float>& logits, const std::vector<float>& expected, int64_t columns);
inline constexpr int kFp8Piece = 4;  // as in scripts/make_golden.py

// Runs fn(rank, comm) on world_size threads; rethrows the first exception.
void on_ranks(int world_size, const std::function<void(int rank, Comm& comm)>& fn);

}  // namespace octet
