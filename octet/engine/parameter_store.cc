#include "octet/engine/parameter_store.h"

#include <algorithm>

#include "octet/base/error.h"

namespace octet {
namespace {

// Stages are made in these sizes, so that parameters of similar size share them.
constexpr int64_t kSmallStage = int64_t{1} << 20;
constexpr int64_t kStageUnit = int64_t{32} << 20;
// The stage of an embedding table is not kept for the small parameters after it: there would be no other to fill while
// it is being copied.
constexpr int64_t kMostTooLarge = 8;

int64_t stage_bytes(int64_t num_bytes) {
  if (num_bytes <= kSmallStage) return kSmallStage;
  return (num_bytes + kStageUnit - 1) / kStageUnit * kStageUnit;
}

}  // namespace

Tensor ParameterStore::allocate(DType dtype, Shape shape, std::string_view name) {
  const int64_t num_bytes = shape.num_elements() * dtype_bytes(dtype);
  num_elements_ += shape.num_elements();
  parameters_.emplace_back(device_, num_bytes, name);
  const Tensor parameter = parameters_.back().tensor(dtype, shape);
  if (device_.kind == DeviceKind::kCpu) return parameter;
  Stage& stage = stage_for(num_bytes, name);
  stage.use = Stage::Use::kWritten;
  stage.parameter = parameter;
  return stage.memory.tensor(dtype, shape);
}

Tensor ParameterStore::place(Tensor written) {
  if (device_.kind == DeviceKind::kCpu) return written;
  const auto stage = std::find_if(stages_.begin(), stages_.end(), [&](const Stage& s) {
    return s.use == Stage::Use::kWritten && s.memory.data() == written.bytes;
  });
  OCTET_CHECK(stage != stages_.end());
  octet::copy(stage->parameter, written, stream_);
  stage->copied.record(stream_);
  stage->use = Stage::Use::kCopied;
  return stage->parameter;
}

// The smallest idle stage that is large enough; a new one when there is none and room for it; else one that is waited
// for.
ParameterStore::Stage& ParameterStore::stage_for(int64_t num_bytes, std::string_view name) {
  const int64_t wanted = stage_bytes(num_bytes);
  const auto find = [&]() -> Stage* {
    Stage* best = nullptr;
    for (Stage& stage : stages_) {
      if (stage.use == Stage::Use::kCopied && stage.copied.is_done()) stage.use = Stage::Use::kIdle;
      const int64_t bytes = stage.memory.num_bytes();
      const bool fits = stage.use == Stage::Use::kIdle && bytes >= wanted && bytes <= kMostTooLarge * wanted;
      if (fits && (best == nullptr || stage.memory.num_bytes() < best->memory.num_bytes())) best = &stage;
    }
    return best;
  };
  if (Stage* stage = find()) return *stage;
  if (staging_bytes_ + wanted > kMaxStagingBytes) {
    synchronize(stream_);
    if (Stage* stage = find()) return *stage;
    drop_idle_stages();
  }
  staging_bytes_ += wanted;
  stages_.push_back(
      Stage{.memory = Buffer::pinned(device_, wanted, name), .copied = Event(device_), .use = {}, .parameter = {}});
  return stages_.back();
}

void ParameterStore::drop_idle_stages() {
  std::erase_if(stages_, [&](const Stage& stage) {
    if (stage.use != Stage::Use::kIdle) return false;
    staging_bytes_ -= stage.memory.num_bytes();
    return true;
  });
}

void ParameterStore::finish() {
  if (device_.kind == DeviceKind::kCpu) return;
  synchronize(stream_);
  stages_.clear();
  staging_bytes_ = 0;
}

}  // namespace octet
