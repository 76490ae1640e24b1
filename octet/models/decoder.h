// Decoder: the pre-norm decoder that most families are: embedding, layers of attention and feed-forward, final norm,
// output projection. A family says what its halves of a layer are; its file in this folder is that.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "octet/layers/sublayer.h"
#include "octet/models/model.h"

namespace octet {

struct DecoderFamily {
  // The halves of layer `index`, read at its cursor ("model.layers.3"). `cache_layer`: its place in this stage's cache.
  std::function<std::unique_ptr<Sublayer>(const Weights& layer, int64_t index, int64_t cache_layer)> attention;
  std::function<std::unique_ptr<Sublayer>(const Weights& layer, int64_t index)> feed_forward;
  // Of one layer on this rank: heads and their size.
  KvCacheLayout kv = {};
  // How many dimensions of a head rotary embedding turns, where config.json's head_dim does not say it.
  std::optional<int64_t> rotated_dim = {};
  // The sliding window of a layer, 0 for none.
  std::function<int64_t(int64_t index)> window = [](int64_t) { return int64_t{0}; };
  // Tensors that the model has no use for, besides those that no decoder has.
  std::function<bool(std::string_view name)> ignorable = [](std::string_view) { return false; };
};

// Reads the layers that the weights' source says. Throws what Weights throws, and Error{kModel} for tensors that are
// missing or left over.
std::unique_ptr<Model> load_decoder(const ModelConfig& config, const Weights& weights, const DecoderFamily& family);

// Throws Error{kUnsupported} unless the activation is SiLU.
void require_silu(const ModelConfig& config);

}  // namespace octet
