// RecordedModel: a model's layout, learned from the model itself in recording mode: no tensor is read, nothing large is
// allocated. What memory planning and reports ask before anything is loaded.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "octet/checkpoint/config.h"
#include "octet/checkpoint/safetensors.h"
#include "octet/device/buffer.h"
#include "octet/models/model.h"
#include "octet/quant/quant_config.h"

namespace octet {

struct RecordingSource {
  const ModelConfig* config = nullptr;
  const SafetensorsFolder* files = nullptr;  // nullptr: dummy weights
  const QuantConfig* quant = nullptr;
  DType plain_dtype = DType::kBF16;
  const Backend* backend = nullptr;  // says which formats are dequantised while loading
  int rank = 0;
  int world_size = 1;
  WeightSource::ExpertSplit expert_split = WeightSource::ExpertSplit::kChannels;
};

class RecordedModel {
 public:
  // All of `source` outlives the constructor only. Throws what loading throws for wrong shapes and left-over tensors.
  explicit RecordedModel(const RecordingSource& source);
  RecordedModel(const RecordedModel&) = delete;
  RecordedModel& operator=(const RecordedModel&) = delete;

  const Model& model() const { return *model_; }                  // its layout; it cannot run
  int64_t weight_bytes() const { return weights_.weight_bytes; }  // scales included
  int64_t scale_bytes() const { return weights_.scale_bytes; }
  const std::set<std::string, std::less<>>& tensors() const { return weights_.consumed; }  // of the checkpoint

 private:
  Tensor allocate(DType dtype, Shape shape, std::string_view name);

  WeightSource weights_;
  Buffer shared_{Device{}, WeightSource::kMaxRecordedBytes, "recording"};  // stands for everything larger
  std::vector<Buffer> buffers_;
  std::unique_ptr<Model> model_;
};

// One per rank; source.rank does not matter.
std::vector<std::unique_ptr<RecordedModel>> record_ranks(RecordingSource source);

}  // namespace octet
