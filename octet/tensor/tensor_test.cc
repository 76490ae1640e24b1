#include "octet/tensor/tensor.h"

#include <gtest/gtest.h>

#include "octet/tensor/dispatch.h"
#include "octet/tensor/quant_format.h"

namespace octet {
namespace {

TEST(DTypeTest, NamesGoThereAndBack) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3, DType::kF8E5M2, DType::kI8,
                            DType::kU8, DType::kI32, DType::kI64, DType::kBool}) {
    EXPECT_EQ(dtype_from_safetensors(dtype_safetensors_name(dtype)), dtype);
    EXPECT_GT(dtype_bytes(dtype), 0);
  }
  EXPECT_EQ(dtype_name(DType::kF8E4M3), "f8_e4m3");
  EXPECT_EQ(dtype_from_safetensors("F8_E4M3"), DType::kF8E4M3);
  EXPECT_EQ(dtype_from_safetensors("F8_E8M0"), DType::kU8);
  EXPECT_FALSE(dtype_from_safetensors("F4").has_value());
}

TEST(TensorTest, ViewsRowsAndColumns) {
  float values[12];
  for (int i = 0; i < 12; ++i) values[i] = static_cast<float>(i);
  const Tensor matrix(reinterpret_cast<std::byte*>(values), DType::kF32, Shape{3, 4});
  EXPECT_TRUE(matrix.contiguous());
  EXPECT_EQ(matrix.dim(-1), 4);
  EXPECT_EQ(matrix.rows(1, 2).row<float>(1)[0], 8.0f);
  const Tensor columns = matrix.columns(1, 2);
  EXPECT_FALSE(columns.contiguous());
  EXPECT_TRUE(columns.rows(2, 1).contiguous());
  EXPECT_EQ(columns.row<float>(2)[1], 10.0f);
  EXPECT_EQ(columns.num_bytes(), 24);
  EXPECT_EQ(matrix.reshape(Shape{2, 6}).row<float>(1)[0], 6.0f);
  EXPECT_THROW(columns.reshape(Shape{6}), Error);
  EXPECT_THROW(matrix.rows(2, 2), Error);
  EXPECT_THROW(matrix.columns(3, 2), Error);
  EXPECT_THROW(matrix.data<int32_t>(), Error);
  EXPECT_THROW((Shape{1, 2, 3, 4, 5}), Error);
  EXPECT_EQ(matrix.shape.to_string(), "[3, 4]");
  EXPECT_EQ(Shape{}.to_string(), "[]");
  EXPECT_EQ(Shape{}.num_elements(), 1);
}

TEST(DispatchTest, CallsTheOneOrFails) {
  int64_t bytes = 0;
  dispatch<DType::kBF16, DType::kF32>(DType::kF32, [&]<DType D>() { bytes = sizeof(CType<D>); });
  EXPECT_EQ(bytes, 4);
  EXPECT_THROW((dispatch<DType::kBF16, DType::kF32>(DType::kI8, [&]<DType D>() { bytes = sizeof(CType<D>); })), Error);
}

TEST(QuantFormatTest, ScaleShapesAndNames) {
  EXPECT_EQ(kF8Tensor.scale_shape(5, 7), (Shape{1}));
  EXPECT_EQ(kF8Channel.scale_shape(5, 7), (Shape{5}));
  const QuantFormat block{
      .dtype = DType::kF8E4M3, .granularity = Granularity::kBlock, .group_rows = 2, .group_cols = 4};
  EXPECT_EQ(block.scale_shape(5, 7), (Shape{3, 2}));
  EXPECT_EQ(block.to_string(), "f8_e4m3 per 2x4 block");
  EXPECT_EQ(kF8DynamicToken.to_string(), "f8_e4m3 per token (dynamic)");
  EXPECT_EQ(plain_format(DType::kBF16).to_string(), "bf16");
  EXPECT_FALSE(plain_format(DType::kBF16).quantized());
}

}  // namespace
}  // namespace octet
