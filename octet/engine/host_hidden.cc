#include "octet/engine/host_hidden.h"

#include <algorithm>

#include "octet/base/error.h"
#include "octet/tensor/dispatch.h"

namespace octet {

HostHidden::HostHidden(Device device, int64_t hidden_size)
    : hidden_size_(hidden_size), row_(static_cast<size_t>(hidden_size)) {
  if (device.kind == DeviceKind::kCpu) return;
  constexpr int64_t kLargest = 4;  // bytes of an element
  staging_ = Buffer::pinned(device, kMaxRows * hidden_size * kLargest, "hidden states on the host");
}

void HostHidden::show(std::span<const StepChunk> chunks, ConstTensor hidden, Stream stream,
                      const std::function<const Request&(SequenceId)>& request_of) {
  int64_t first_row = 0;
  for (const StepChunk& chunk : chunks) {
    if (chunk.score_begin != kNothingScored) {
      const Request& request = request_of(chunk.sequence);
      const int64_t end = std::min(chunk.end(), static_cast<int64_t>(request.prompt_token_ids.size()));
      if (request.on_hidden) {
        const int64_t first = first_row + chunk.score_begin - chunk.begin;
        show_rows(hidden.rows(first, end - chunk.score_begin), chunk.score_begin, stream, request);
      }
    }
    first_row += chunk.num_tokens;
  }
}

void HostHidden::show_rows(ConstTensor rows, int64_t position, Stream stream, const Request& request) {
  const bool copies = staging_.data() != nullptr;
  for (int64_t begin = 0; begin < rows.dim(0); begin += kMaxRows) {
    ConstTensor slice = rows.rows(begin, std::min(kMaxRows, rows.dim(0) - begin));
    if (copies) {
      const Tensor here = staging_.tensor(slice.dtype, slice.shape);
      octet::copy(here, slice, stream);
      synchronize(stream);
      slice = here;
    }
    for (int64_t i = 0; i < slice.dim(0); ++i) {
      dispatch<DType::kF32, DType::kBF16, DType::kF16>(slice.dtype, [&]<DType D>() {
        const auto* from = slice.row<CType<D>>(i);
        std::transform(from, from + hidden_size_, row_.begin(), [](auto value) { return to_f32(value); });
      });
      request.on_hidden(position + begin + i, row_);
    }
  }
}

}  // namespace octet
