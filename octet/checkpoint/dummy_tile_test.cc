#include "octet/checkpoint/dummy_tile.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <set>

#include "octet/checkpoint/weights.h"
#include "octet/tensor/dispatch.h"

namespace octet {
namespace {

struct Matrix {
  Matrix(DType dtype, int64_t rows, int64_t columns)
      : bytes(static_cast<size_t>(rows * columns * dtype_bytes(dtype))), view(bytes.data(), dtype, {rows, columns}) {}
  std::vector<std::byte> bytes;
  Tensor view;
};

TEST(DummyTile, EveryCutHoldsTheSameNumbers) {
  ThreadPool threads(2);
  const DummyTile tile(threads);
  constexpr int64_t kRows = 600, kColumns = 4096;  // more than twice the tile
  Matrix whole(DType::kBF16, kRows, kColumns), cut(DType::kBF16, 200, 96);
  tile.fill("m", {.num_columns = kColumns}, whole.view, threads);
  tile.fill("m", {.first_row = 390, .first_column = 1000, .num_columns = kColumns}, cut.view, threads);
  std::set<std::string> rows;
  for (int64_t r = 0; r < kRows; ++r)
    rows.emplace(reinterpret_cast<const char*>(whole.view.row<BF16>(r)), static_cast<size_t>(kColumns) * sizeof(BF16));
  EXPECT_EQ(rows.size(), static_cast<size_t>(kRows));
  for (int64_t r = 0; r < 200; ++r) {
    ASSERT_EQ(std::memcmp(cut.view.row<BF16>(r), whole.view.row<BF16>(390 + r) + 1000, 96 * sizeof(BF16)), 0) << r;
  }
  double sum = 0.0, squares = 0.0;
  const auto* values = whole.view.data<BF16>();
  for (int64_t i = 0; i < kRows * kColumns; ++i) {
    const double value = to_f32(values[i]);
    ASSERT_LE(std::abs(value), 0.0502);
    sum += value;
    squares += value * value;
  }
  EXPECT_NEAR(sum / (kRows * kColumns), 0.0, 1e-4);
  EXPECT_NEAR(std::sqrt(squares / (kRows * kColumns)), 0.1 / std::sqrt(12.0), 1e-4);
}

TEST(DummyTile, NamesGiveOtherPlaces) {
  ThreadPool threads(1);
  const DummyTile tile(threads);
  Matrix a(DType::kF32, 1, 64), b(DType::kF32, 1, 64);
  tile.fill("a", {.num_columns = 64}, a.view, threads);
  tile.fill("b", {.num_columns = 64}, b.view, threads);
  EXPECT_NE(a.bytes, b.bytes);
}

// Codes times scale are the real values, to the precision of E4M3.
TEST(DummyTile, CodesMeanTheRealValues) {
  ThreadPool threads(1);
  const DummyTile tile(threads);
  Matrix real(DType::kF32, 8, 512), codes(DType::kF8E4M3, 8, 512);
  tile.fill("m", {.num_columns = 512}, real.view, threads);
  tile.fill("m", {.num_columns = 512}, codes.view, threads);
  for (int64_t i = 0; i < 8 * 512; ++i) {
    const float value = real.view.data<float>()[i];
    const float meant = to_f32(codes.view.data<F8E4M3>()[i]) * DummyTile::kF8Scale;
    ASSERT_NEAR(meant, value, std::abs(value) / 16 + 1e-6f) << i;
  }
}

}  // namespace
}  // namespace octet
