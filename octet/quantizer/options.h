// What a user asks of the quantiser, and what it answers.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "octet/layers/step.h"
#include "octet/quantizer/figures.h"

namespace octet {

struct QuantizeOptions {
  std::string model_folder;  // resolved; safetensors with real numbers
  std::string out_folder;
  std::string scheme = "fp8_channel";  // see named_scheme.h; "mixed": see precision.h
  std::string activation_scheme;       // "", "static", "dynamic"
  std::string dialect;                 // "", "autofp8", "compressed-tensors": see find_writer
  std::vector<std::string> ignore;     // modules that stay as they are, besides lm_head, routers and vision towers
  // Text, or token ids in place of it: with them the model is run layer by layer, static activations and scales of the
  // KV cache are found, and the report says what was lost. Without, weights alone decide.
  std::string calibration;  // see calibration_text.h
  std::vector<std::vector<int32_t>> calibration_tokens;
  int64_t num_samples = 128;
  int64_t max_seq_len = 2048;          // of a sample, in tokens
  std::string held_out;                // a text of its own to judge by; "": an eighth of the calibration's samples more
  int64_t num_held_out = 32;           // samples of it
  bool calibrate_all_experts = false;  // experts see every token of the samples, not only those that are sent to them
  std::string kv_cache_scheme;         // "": no scales are written; "tensor": one per layer; "head": one per head
  std::string recipe;         // "": scales from the largest magnitudes, rounding to the nearest; else see recipe.h
  std::string smooth;         // "off", "auto", a strength (see smoothing.h); "": auto where it is of use with "best"
  double plain_share = 0.02;  // of "mixed": how much of the linears' weights may stay as it is
  int headroom = 1;           // static scales hold 2^headroom times the largest magnitude that was seen
  std::optional<double> max_kld;  // a larger mean KL divergence is an error, and nothing is written
  bool resume = false;            // continue what an interrupted run left
  int num_threads = 0;            // 0: all processors
  int64_t max_shard_bytes = int64_t{4} << 30;
  // What is done and how much there is, in one unit for the whole run. What it throws ends the run, which can be
  // resumed.
  std::function<void(int64_t done, int64_t total)> on_progress;

  ObservedExperts observed_experts() const {
    return calibrate_all_experts ? ObservedExperts::kAll : ObservedExperts::kRouted;
  }
};

struct QuantizeReport {
  std::string scheme, dialect, out_folder;
  std::vector<LinearFigures> linears;  // in the order of the model
  int64_t num_copied = 0;              // tensors that stayed as they are
  int64_t source_bytes = 0, written_bytes = 0;
  std::vector<LayerFigures> layers;  // of a calibrated run, like the following
  std::optional<ModelFigures> model;
  int64_t calibration_tokens = 0;
  bool calibrated_all_experts = false;
  std::string calibration_digest;
  int64_t num_resumed = 0;  // tensors that an earlier run had written
  double seconds = 0.0;

  Json to_json() const;
};

}  // namespace octet
