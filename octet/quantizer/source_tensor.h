// SourceTensor: one tensor of the checkpoint to be quantised, as an aligned matrix, checked for what no quantiser may
// pass on: NaN and infinity.
#pragma once

#include <string>
#include <vector>

#include "octet/base/thread_pool.h"
#include "octet/checkpoint/safetensors.h"
#include "octet/quantizer/fold.h"
#include "octet/tensor/tensor.h"

namespace octet {

class SourceTensor {
 public:
  // Throws Error{kModel} with the place of the first number that is NaN or infinite.
  SourceTensor(const SafetensorsFolder& files, const std::string& name, ThreadPool& threads);
  ~SourceTensor() { files_.drop_pages(name_); }
  SourceTensor(const SourceTensor&) = delete;
  SourceTensor& operator=(const SourceTensor&) = delete;

  // Changes the numbers: they are F32 from then on.
  void apply(const Fold& fold, ThreadPool& threads);

  std::span<const std::byte> bytes() const { return {view_.bytes, static_cast<size_t>(view_.num_bytes())}; }
  // As it is in the file, or F32 after apply. [N, K] where it is of rank 2.
  ConstTensor matrix() const { return view_; }

 private:
  void refuse_non_finite(ThreadPool& threads) const;

  const SafetensorsFolder& files_;
  std::string name_;
  ConstTensor view_;
  std::vector<std::byte> aligned_;  // a copy where the file's tensors lie at odd addresses
  std::vector<float> folded_;
};

}  // namespace octet
