#include "octet/checkpoint/dummy_tile.h"

#include <algorithm>
#include <cstring>

#include "octet/tensor/dispatch.h"

namespace octet {
namespace {

constexpr int64_t kNumValues = 1048583;  // prime

template <class T>
std::vector<std::byte> converted(const float* values, float factor) {
  std::vector<std::byte> bytes(static_cast<size_t>(kNumValues) * sizeof(T));
  auto* to = reinterpret_cast<T*>(bytes.data());
  for (int64_t i = 0; i < kNumValues; ++i) to[i] = from_f32<T>(values[i] * factor);
  return bytes;
}

}  // namespace

DummyTile::DummyTile(ThreadPool& threads) : f32_(static_cast<size_t>(kNumValues) * sizeof(float)) {
  const Tensor tile(f32_.data(), DType::kF32, Shape{kNumValues, 1});
  fill_dummy("dummy tile", DummyPlace{.num_columns = 1}, tile, threads);
  const float* values = tile.data<float>();
  bf16_ = converted<BF16>(values, 1.0f);
  f16_ = converted<F16>(values, 1.0f);
  f8_ = converted<F8E4M3>(values, 1.0f / kF8Scale);
}

const std::vector<std::byte>& DummyTile::values(DType dtype) const {
  if (dtype == DType::kF32) return f32_;
  if (dtype == DType::kBF16) return bf16_;
  if (dtype == DType::kF16) return f16_;
  if (dtype == DType::kF8E4M3) return f8_;
  fail(ErrorCode::kInternal, "no dummy values of {}", dtype_name(dtype));
}

void DummyTile::fill(std::string_view name, DummyPlace place, Tensor out, ThreadPool& threads) const {
  const std::vector<std::byte>& tile = values(out.dtype);
  const int64_t bytes = dtype_bytes(out.dtype);
  const auto first = static_cast<int64_t>(hash_name(name) % static_cast<uint64_t>(kNumValues));
  constexpr int64_t kElementsPerPiece = 1 << 18;
  const int64_t grain = std::max<int64_t>(1, kElementsPerPiece / std::max<int64_t>(1, out.dim(1)));
  threads.parallel_for(out.dim(0), grain, [&](int, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      std::byte* row = out.bytes + r * out.row_stride * bytes;
      int64_t at = (first + (place.first_row + r) * place.num_columns + place.first_column) % kNumValues;
      for (int64_t c = 0; c < out.dim(1);) {
        const int64_t count = std::min(out.dim(1) - c, kNumValues - at);
        std::memcpy(row + c * bytes, tile.data() + at * bytes, static_cast<size_t>(count * bytes));
        c += count;
        at = 0;
      }
    }
  });
}

}  // namespace octet
