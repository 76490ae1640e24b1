// LayerRunner: some layers of a model, loaded, run over whole sequences on the CPU. What calibration and the report
// run, so that memory holds one layer at a time.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "octet/checkpoint/config.h"
#include "octet/checkpoint/safetensors.h"
#include "octet/device/arena.h"
#include "octet/device/comm.h"
#include "octet/kernels/backends.h"
#include "octet/kv/kv_cache.h"
#include "octet/models/model.h"
#include "octet/quant/quant_config.h"

namespace octet {

// The processor's kernels with their threads, for one runner after the other.
class CpuBackend {
 public:
  explicit CpuBackend(ThreadPool& threads);
  const Backend& operator*() const { return backend_; }
  ThreadPool& threads() const { return threads_; }

 private:
  ThreadPool& threads_;
  ThreadScratch scratch_;
  Backend backend_;
};

// Sequences that run in one step, each from its first token to its last: no padding, so that nothing but text is seen.
struct SequenceBatch {
  std::vector<std::vector<int32_t>> sequences;
  int64_t num_tokens() const;
};
// In order, as many at a time as have at most `max_tokens` tokens, at least one.
std::vector<SequenceBatch> batch_sequences(std::span<const std::vector<int32_t>> sequences, int64_t max_tokens);

struct LayerSource {
  const ModelConfig* config = nullptr;
  const SafetensorsFolder* files = nullptr;
  const QuantConfig* quant = nullptr;
  LayerRange layers;
  DType kv_dtype = DType::kF32;
  float k_scale = 1.0f, v_scale = 1.0f;  // of every layer's cache
};

class LayerRunner {
 public:
  // Loads the layers. `batches`: the largest of them is made room for; outlives this.
  LayerRunner(const LayerSource& source, const CpuBackend& backend, std::span<const SequenceBatch> batches);
  LayerRunner(const LayerRunner&) = delete;
  LayerRunner& operator=(const LayerRunner&) = delete;

  using ObserveInput = std::function<void(std::string_view linear, ConstTensor input)>;
  // One batch. `residual` [T, hidden_size] f32: what the layers before left, changed in place; empty for those that
  // embed. The result, what these layers leave, is valid until the next call.
  ConstTensor run(const SequenceBatch& batch, Tensor residual, const ObserveInput& observe = nullptr,
                  ObservedExperts experts = ObservedExperts::kRouted);
  // After run: the largest magnitudes of the batch's keys (rotated) and values, by head.
  struct CacheMaxima {
    std::vector<float> k, v;
  };
  CacheMaxima cache_maxima(int64_t layer = 0) const;  // of these layers
  // Of the last layers: logits f32 [R, vocab_size] of rows of hidden states; valid until the next call.
  ConstTensor logits(ConstTensor hidden_rows);

  static constexpr int64_t kMaxLogitRows = 64;

 private:
  static constexpr int64_t kBlockSize = 16;
  Batch make_batch(const SequenceBatch& batch);
  Step make_step(const Batch& batch);

  const CpuBackend& backend_;
  std::unique_ptr<Comm> comm_ = make_single_comm();
  std::vector<Buffer> parameters_;
  std::unique_ptr<Model> model_;
  std::optional<KvCache> kv_;
  std::optional<Arena> arena_;
  std::vector<std::vector<int32_t>> integers_;  // of the batch
  const SequenceBatch* batch_ = nullptr;        // that ran last
};

}  // namespace octet
