// DummyTile: dummy weights in bulk, for models of many gigabytes that are loaded only to be timed. About a million
// random values, made once; a matrix is a stretch of their endless repetition, from a place that its name gives. The
// number of values is prime, so that no two rows of a matrix (of fewer rows than that) are the same.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "octet/base/thread_pool.h"
#include "octet/checkpoint/copy_matrix.h"
#include "octet/tensor/tensor.h"

namespace octet {

class DummyTile {
 public:
  // The scale of quantised values: with it the codes mean what the real values are, uniform in [-0.05, 0.05].
  static constexpr float kF8Scale = 0.05f / 448.0f;

  explicit DummyTile(ThreadPool& threads);
  // out [R, C] f32|bf16|f16|f8_e4m3, by name and place as fill_dummy does: every cut of a matrix holds the same
  // numbers.
  void fill(std::string_view name, DummyPlace place, Tensor out, ThreadPool& threads) const;

 private:
  const std::vector<std::byte>& values(DType dtype) const;

  std::vector<std::byte> f32_, bf16_, f16_, f8_;
};

}  // namespace octet
