#include "octet/engine/recorded_model.h"

#include <algorithm>

#include "octet/kernels/backends.h"

namespace octet {

RecordedModel::RecordedModel(const RecordingSource& source) {
  weights_.mode = WeightSource::Mode::kRecord;
  weights_.files = source.files;
  weights_.quant = source.quant;
  weights_.threads = source.backend->launch().threads;
  weights_.plain_dtype = source.plain_dtype;
  weights_.rank = source.rank;
  weights_.world_size = source.world_size;
  weights_.expert_split = source.expert_split;
  weights_.shares_token_scales = source.backend->device().kind == DeviceKind::kCpu;
  weights_.runs_fast = [&](const QuantFormat& weight, const QuantFormat& activation, int64_t n, int64_t k) {
    return has_fast_linear(*source.backend, weight, activation, n, k);
  };
  weights_.allocate = [this](DType dtype, Shape shape, std::string_view name) { return allocate(dtype, shape, name); };
  model_ = find_arch(*source.config).load(*source.config, Weights(weights_), *source.backend);
}

Tensor RecordedModel::allocate(DType dtype, Shape shape, std::string_view name) {
  const int64_t bytes = shape.num_elements() * dtype_bytes(dtype);
  if (bytes > WeightSource::kMaxRecordedBytes) return Tensor(shared_.data(), dtype, shape);
  buffers_.emplace_back(Device{}, std::max<int64_t>(bytes, 1), name);
  return buffers_.back().tensor(dtype, shape);
}

std::vector<std::unique_ptr<RecordedModel>> record_ranks(RecordingSource source) {
  std::vector<std::unique_ptr<RecordedModel>> ranks;
  for (source.rank = 0; source.rank < source.world_size; ++source.rank)
    ranks.push_back(std::make_unique<RecordedModel>(source));
  return ranks;
}

}  // namespace octet
