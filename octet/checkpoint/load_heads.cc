// Weights::head_projections: one matrix on disk as two stacks of real numbers, one of them transposed.
#include <cstring>

#include "octet/base/error.h"
#include "octet/checkpoint/linear_loader.h"
#include "octet/tensor/dispatch.h"

namespace octet {
namespace {

// Rows [first, first + count) of each head's `step` rows: as they are, or transposed.
enum class Layout { kRows, kTransposed };
void copy_heads(const ConstTensor& matrix, int64_t step, int64_t first, Layout layout, const Tensor& to) {
  dispatch<DType::kF32, DType::kBF16, DType::kF16>(matrix.dtype, [&]<DType D>() {
    const int64_t columns = matrix.dim(1), count = layout == Layout::kRows ? to.dim(1) : to.dim(2);
    auto* out = to.data<CType<D>>();
    for (int64_t h = 0; h < to.dim(0); ++h, out += count * columns) {
      for (int64_t r = 0; r < count; ++r) {
        const auto* row = matrix.row<CType<D>>(h * step + first + r);
        for (int64_t c = 0; c < columns; ++c) out[layout == Layout::kRows ? r * columns + c : c * count + r] = row[c];
      }
    }
  });
}

}  // namespace

HeadProjections Weights::head_projections(const HeadProjectionsRequest& request) const {
  LinearLoader loader(*this, request.linear);
  loader.hold_in_plain();
  LoadedLinear whole = loader.described();
  const DType dtype = whole.weight.data.dtype;
  const bool reads = source_.mode == WeightSource::Mode::kLoad;
  std::vector<std::byte> bytes(static_cast<size_t>(reads ? whole.weight.data.num_bytes() : 1));
  whole.weight.data.bytes = bytes.data();
  loader.load_into(whole);
  const int64_t heads = request.num_heads, latent = whole.weight.data.dim(1), step = whole.weight.data.dim(0) / heads;
  const int64_t keys = request.key_dim, values = step - keys;
  HeadProjections result{.name = loader.module()};
  result.key = source_.allocate(dtype, Shape{heads, latent, keys}, loader.module() + ".key");
  result.value = source_.allocate(dtype, Shape{heads, values, latent}, loader.module() + ".value");
  source_.weight_bytes += result.key.num_bytes() + result.value.num_bytes();
  if (reads) {
    copy_heads(whole.weight.data, step, 0, Layout::kTransposed, result.key);
    copy_heads(whole.weight.data, step, keys, Layout::kRows, result.value);
  }
  result.key = source_.place(result.key);
  result.value = source_.place(result.value);
  return result;
}

}  // namespace octet
