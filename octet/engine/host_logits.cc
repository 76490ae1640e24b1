#include "octet/engine/host_logits.h"

#include "octet/base/error.h"

namespace octet {

HostLogits::HostLogits(Device device, int64_t vocab_size, int64_t max_choices) : vocab_size_(vocab_size) {
  if (device.kind == DeviceKind::kCpu) return;
  constexpr int64_t kFloat = 4, kInt32 = 4;
  rows_ = Buffer::pinned(device, kMaxRows * vocab_size * kFloat, "logits on the host");
  choices_ = Buffer::pinned(device, max_choices * kInt32, "chosen tokens on the host");
}

std::vector<std::span<float>> HostLogits::rows(Tensor logits, std::span<const int32_t> indices, Stream stream) {
  OCTET_CHECK(static_cast<int64_t>(indices.size()) <= kMaxRows);
  const bool copies = rows_.data() != nullptr;
  const Tensor target = copies ? rows_.tensor(DType::kF32, Shape{kMaxRows, vocab_size_}) : logits;
  std::vector<std::span<float>> result;
  for (size_t i = 0; i < indices.size(); ++i) {
    const int64_t row = copies ? static_cast<int64_t>(i) : indices[i];
    if (copies) octet::copy(target.rows(row, 1), logits.rows(indices[i], 1), stream);
    result.emplace_back(target.row<float>(row), static_cast<size_t>(vocab_size_));
  }
  if (copies) synchronize(stream);
  return result;
}

std::span<const int32_t> HostLogits::choices(ConstTensor choices, Stream stream) {
  const int64_t count = choices.dim(0);
  if (choices_.data() == nullptr) return {choices.data<int32_t>(), static_cast<size_t>(count)};
  const Tensor target = choices_.tensor(DType::kI32, Shape{count});
  octet::copy(target, choices, stream);
  synchronize(stream);
  return {target.data<int32_t>(), static_cast<size_t>(count)};
}

}  // namespace octet
