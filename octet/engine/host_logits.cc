#include "octet/engine/host_logits.h"

#include "octet/base/error.h"

namespace octet {

HostLogits::HostLogits(Device device, int64_t vocab_size, int64_t max_choices) : vocab_size_(vocab_size) {
  if (device.kind == DeviceKind::kCpu) return;
  constexpr int64_t kFloat = 4, kInt32 = 4;
  rows_ = Buffer::pinned(device, kMaxRows * vocab_size * kFloat, "logits on the host");
  for (size_t i = 0; i < kMaxUnderWay; ++i) {
    choices_.push_back(Choices{.memory = Buffer::pinned(device, max_choices * kInt32, "chosen tokens on the host"),
                               .copied = Event(device)});
  }
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

void HostLogits::queue_choices(ConstTensor choices, const Backend& backend) {
  OCTET_CHECK(num_queued_ - num_taken_ < choices_.size());
  Choices& to = choices_[num_queued_++ % choices_.size()];
  to.count = choices.dim(0);
  MoveIntsOp op;
  op.moves[0].to = to.memory.tensor(DType::kI32, Shape{to.count});
  op.moves[0].from = choices;
  backend(op);
  to.copied.record(backend.launch().stream);
}

std::span<const int32_t> HostLogits::take_choices() {
  OCTET_CHECK(num_taken_ < num_queued_);
  Choices& from = choices_[num_taken_++ % choices_.size()];
  from.copied.wait();
  return {from.memory.tensor(DType::kI32, Shape{from.count}).data<int32_t>(), static_cast<size_t>(from.count)};
}

}  // namespace octet
