// Copies and scans of matrices whose bytes may lie at any address, as in a mapped checkpoint: real numbers (f32, bf16,
// f16) and codes (f8_e4m3).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "octet/base/thread_pool.h"
#include "octet/tensor/tensor.h"

namespace octet {

bool is_real(DType dtype);  // f32, bf16, f16

// to = from, converted (round to nearest even). Shapes [R, C] equal; rows of both may be strided; dtypes f32|bf16|f16.
void copy_matrix(ConstTensor from, Tensor to, ThreadPool& threads);

// maxima[r] = max_c |x[r, c]| (NaN counts as nothing). x [R, C] f32|bf16|f16.
void row_maxima(ConstTensor x, std::span<float> maxima, ThreadPool& threads);

// The codes of f8_e4m3 [R, C] that are no numbers (0x7f and 0xff): how many, and where the first is. Rows may be
// strided.
struct NanCodes {
  int64_t count = 0;
  int64_t first_row = 0;
  int64_t first_column = 0;
};
NanCodes find_nan_codes(ConstTensor codes, ThreadPool& threads);
// to = from, both f8_e4m3 or i8 [R, C], and the search in the same pass over memory.
NanCodes copy_codes(ConstTensor from, Tensor to, ThreadPool& threads);

// A number that stands for a name, the same on every machine.
uint64_t hash_name(std::string_view name);

// out[r, c] uniform in [-0.05, 0.05] from the name and the element's place in the whole matrix of `num_columns`
// columns, so that every cut of the matrix holds the same numbers.
struct DummyPlace {
  int64_t first_row = 0;
  int64_t first_column = 0;
  int64_t num_columns = 0;
};
void fill_dummy(std::string_view name, DummyPlace place, Tensor out, ThreadPool& threads);

}  // namespace octet
