// What a user asks of the quantiser, and what it answers.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "octet/quantizer/figures.h"

namespace octet {

struct QuantizeOptions {
  std::string model_folder;  // resolved; safetensors with real numbers
  std::string out_folder;
  std::string scheme = "fp8_channel";  // see named_scheme.h
  std::string activation_scheme;       // "", "static", "dynamic"
  std::string dialect;                 // "", "autofp8", "compressed-tensors": see find_writer
  std::vector<std::string> ignore;     // modules that stay as they are, besides lm_head, routers and vision towers
  bool resume = false;                 // continue what an interrupted run left
  int num_threads = 0;                 // 0: all processors
  int64_t max_shard_bytes = int64_t{4} << 30;
  // What is done and how much there is, in one unit for the whole run. What it throws ends the run, which can be
  // resumed.
  std::function<void(int64_t done, int64_t total)> on_progress;
};

struct QuantizeReport {
  std::string scheme, dialect, out_folder;
  std::vector<LinearFigures> linears;  // in the order of the model
  int64_t num_copied = 0;              // tensors that stayed as they are
  int64_t source_bytes = 0, written_bytes = 0;
  int64_t num_resumed = 0;  // tensors that an earlier run had written
  double seconds = 0.0;

  Json to_json() const;
};

}  // namespace octet
