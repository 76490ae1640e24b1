// CaseMemory: the arguments of one op call, so that kernel after kernel can run on them from the same state. It knows
// which are outputs, how far they may differ, and what surrounds them: guard bytes before, after and between strided
// rows. Arguments of a GPU's op lie in its memory, each in an allocation of its own; they are filled and compared on
// the host.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "octet/device/buffer.h"
#include "octet/tensor/quant_format.h"
#include "tests/ops/random.h"

namespace octet::ops_test {

// |found - expected| <= absolute + relative * |expected|; for 8-bit outputs instead at most one code's distance, for at
// most this share of the elements (and always for two of them): a sum's last bit decides between two codes now and
// then.
struct Bound {
  double absolute = 0.0;
  double relative = 0.0;
  double share_of_neighbours = 0.0;
  bool strict = false;  // never loosened
};
inline constexpr Bound kExact{};

// The bound of an output whose F32 value has the bound `f32`: BF16 may round it the other way.
inline Bound rounded_bound(DType dtype, Bound f32) {
  return dtype == DType::kBF16 && f32.absolute > 0.0 ? Bound{.absolute = f32.absolute, .relative = 0x1p-7} : f32;
}

enum class Layout { kContiguous, kStrided };  // strided: a few elements between rows
inline constexpr int64_t kOddGap = 3;
inline constexpr int64_t kAlignedGap = 16;  // rows of a multiple of 16 elements stay aligned to 16 bytes

using Fill = std::function<float(Random&)>;
inline float normal_values(Random& random) { return random.normal(); }

class CaseMemory {
 public:
  // Arguments lie on the stream's device, and copies between it and the host take their turn in the stream. Memories of
  // one seed and gap hold the same values on every device.
  explicit CaseMemory(uint64_t seed, Stream stream = {}, int64_t gap_elements = kOddGap)
      : random_(seed), stream_(stream), gap_elements_(gap_elements) {}
  CaseMemory(const CaseMemory&) = delete;
  CaseMemory& operator=(const CaseMemory&) = delete;

  Random& random() { return random_; }

  ConstTensor input(DType dtype, Shape shape, const Fill& fill = normal_values, Layout layout = Layout::kContiguous);
  // An input that no kernel of a step writes, so that a GPU kernel may read it before the kernel before it has ended.
  ConstTensor weight(DType dtype, Shape shape, const Fill& fill = normal_values);
  ConstTensor integers(Shape shape, const std::vector<int32_t>& values);
  // An output whose contents before the call do not matter.
  Tensor output(std::string name, DType dtype, Shape shape, Bound bound, Layout layout = Layout::kContiguous);
  // An output that is read too.
  Tensor in_out(std::string name, DType dtype, Shape shape, Bound bound, const Fill& fill = normal_values,
                Layout layout = Layout::kContiguous);

  // The same of i32.
  Tensor in_out(std::string name, const std::vector<int32_t>& values);

  // What a kernel may write or leave alone: restored before every call, never compared.
  Tensor scratch(DType dtype, Shape shape, const Fill& fill = normal_values);
  // Declares that no kernel before this one writes the argument in a step, so that this one may read it early.
  void written_before_step(const ConstTensor& argument);
  // The same of the elements of a contiguous argument but those for which is_new(i) holds, which arrive with the step.
  void written_before_step(const ConstTensor& argument, const std::function<bool(int64_t)>& is_new);

  // A matrix in a format with scales that give values of the fill's magnitude.
  ConstQuantTensor quant_input(const QuantFormat& format, int64_t rows, int64_t cols,
                               Layout layout = Layout::kContiguous);
  ConstQuantTensor quant_weight(const QuantFormat& format, int64_t rows, int64_t cols);
  // `f32`: the bound of the values before they are rounded to the format. 8-bit data may be off by one code for `share`
  // of the elements and the scales by what the largest value may; with share 0 both are exact.
  QuantTensor quant_output(const std::string& name, const QuantFormat& format, int64_t rows, int64_t cols, Bound f32,
                           double share, Layout layout = Layout::kContiguous);

  // The values of an integers() argument or of an input, on the host.
  ConstTensor on_host(const ConstTensor& input) const;
  bool on_gpu() const { return stream_.device.kind == DeviceKind::kCuda; }

  // Everything as before the first call: outputs hold `poison` in every byte.
  void reset(std::byte poison);
  // The same on a GPU, but not before the next kernel in the stream may start: zeros lie in all that a kernel of a step
  // writes until a kernel that lets the next one start at once, takes its time and then writes everything.
  void reset_late(std::byte poison);
  // The bytes of all outputs, guards included, when all work queued so far is done.
  using Snapshot = std::vector<std::vector<std::byte>>;
  Snapshot outputs() const;
  // What differs more than the bounds allow, as text; empty when nothing does. Bytes round the elements must be
  // untouched.
  // With `looseness` above 1 absolute bounds are so much wider, relative ones BF16's rounding, and 8-bit elements may
  // differ by kLooseCodes of their scale, besides a code.
  static constexpr double kLooseCodes = 8.0;
  std::string differences(const Snapshot& expected, const Snapshot& found, double looseness = 1.0) const;

 private:
  struct Block {
    std::string name;
    Tensor view;  // of the host's memory
    Bound bound;
    std::vector<std::byte> memory;
    Buffer on_gpu;                   // a GPU's arguments: laid out as `memory`
    std::vector<std::byte> initial;  // in_out, scratch: contents; output: empty
    bool is_output = false;
    bool is_scratch = false;
    bool is_early = false;               // there before the step, as weights are
    std::vector<std::byte> before_step;  // what is there then of an argument that the step completes; else empty
  };
  Block& block_of(const ConstTensor& argument) const;
  Block& add(std::string name, DType dtype, Shape shape, Layout layout, size_t guard_bytes);
  Tensor add_integers(Shape shape, const std::vector<int32_t>& values);
  Tensor add_zero_points(Shape shape);
  // The host's outputs as before the first call.
  void poison_outputs(std::byte poison);
  void fill_block(Block& block, const Fill& fill);
  // The block as the op gets it, its device's memory equal to the host's.
  Tensor uploaded(const Block& block) const;
  static std::string difference(const Block& block, const std::vector<std::byte>& expected,
                                const std::vector<std::byte>& found, double looseness);

  Random random_;
  Stream stream_;
  int64_t gap_elements_;
  std::vector<std::unique_ptr<Block>> blocks_;
  Buffer late_;  // what reset_late() writes
};

}  // namespace octet::ops_test
