#include "tests/ops/case_memory.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "octet/device/stream.h"
#include "octet/ops/quantize.h"
#include "octet/tensor/dispatch.h"
#include "tests/ops/late_writer.h"

namespace octet::ops_test {
namespace {

constexpr std::byte kGuard{0xa5};
constexpr size_t kGuardBytes = 64;

// The first element of row i of a view, in elements from the view's first.
int64_t row_begin(const Tensor& view, int64_t i) { return i * view.row_stride; }
int64_t num_rows(const Tensor& view) { return view.rank() == 0 ? 1 : view.dim(0); }
int64_t row_elements(const Tensor& view) { return num_rows(view) == 0 ? 0 : view.num_elements() / num_rows(view); }

double element(const std::byte* bytes, DType dtype, int64_t i) {
  if (dtype == DType::kI32) return reinterpret_cast<const int32_t*>(bytes)[i];
  float value = 0.0f;
  dispatch<DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3, DType::kF8E5M2, DType::kI8>(
      dtype, [&]<DType D>() { value = to_f32(reinterpret_cast<const CType<D>*>(bytes)[i]); });
  return value;
}

// Codes of 8-bit formats in the order of their values: neighbours differ by one.
int code_order(DType dtype, std::byte code) {
  if (dtype == DType::kI8) return static_cast<int8_t>(code);
  const int bits = static_cast<int>(code);
  return (bits & 0x80) != 0 ? -(bits & 0x7f) : bits;
}

bool is_8_bit(DType dtype) { return dtype == DType::kF8E4M3 || dtype == DType::kF8E5M2 || dtype == DType::kI8; }

}  // namespace

CaseMemory::Block& CaseMemory::add(std::string name, DType dtype, Shape shape, Layout layout, size_t guard_bytes) {
  auto block = std::make_unique<Block>();
  block->name = std::move(name);
  block->view = Tensor(nullptr, dtype, shape);
  if (layout == Layout::kStrided && shape.rank() > 1) block->view.row_stride += gap_elements_;
  const int64_t span =
      num_rows(block->view) == 0 ? 0 : row_begin(block->view, num_rows(block->view) - 1) + row_elements(block->view);
  block->memory.assign(static_cast<size_t>(span * dtype_bytes(dtype)) + 2 * guard_bytes, kGuard);
  // An input has no guards: an address sanitizer then sees a read beyond its end. An empty tensor has an address all
  // the same.
  if (block->memory.empty()) block->memory.reserve(1);
  block->view.bytes = block->memory.data() + guard_bytes;
  if (stream_.device.kind != DeviceKind::kCpu) {
    block->on_gpu =
        Buffer(stream_.device, std::max<int64_t>(1, static_cast<int64_t>(block->memory.size())), block->name);
  }
  blocks_.push_back(std::move(block));
  return *blocks_.back();
}

Tensor CaseMemory::uploaded(const Block& block) const {
  if (block.on_gpu.num_bytes() == 0) return block.view;
  copy_bytes(block.on_gpu.data(), block.memory.data(), static_cast<int64_t>(block.memory.size()), stream_);
  Tensor argument = block.view;
  argument.bytes = block.on_gpu.data() + (block.view.bytes - block.memory.data());
  return argument;
}

CaseMemory::Block& CaseMemory::block_of(const ConstTensor& argument) const {
  for (const auto& block : blocks_) {
    const std::byte* memory = block->on_gpu.num_bytes() > 0 ? block->on_gpu.data() : block->memory.data();
    if (memory + (block->view.bytes - block->memory.data()) == argument.bytes) return *block;
  }
  fail(ErrorCode::kInternal, "no argument of this case");
}

ConstTensor CaseMemory::on_host(const ConstTensor& input) const { return block_of(input).view; }

void CaseMemory::fill_block(Block& block, const Fill& fill) {
  const Tensor& view = block.view;
  dispatch<DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3, DType::kF8E5M2, DType::kI8>(
      view.dtype, [&]<DType D>() {
        for (int64_t i = 0; i < num_rows(view); ++i) {
          auto* row = view.data<CType<D>>() + row_begin(view, i);
          for (int64_t k = 0; k < row_elements(view); ++k) row[k] = from_f32<CType<D>>(fill(random_));
        }
      });
}

ConstTensor CaseMemory::input(DType dtype, Shape shape, const Fill& fill, Layout layout) {
  Block& block = add("input", dtype, shape, layout, 0);
  fill_block(block, fill);
  return uploaded(block);
}

ConstTensor CaseMemory::weight(DType dtype, Shape shape, const Fill& fill) {
  const ConstTensor tensor = input(dtype, shape, fill);
  blocks_.back()->is_early = true;
  return tensor;
}

ConstTensor CaseMemory::integers(Shape shape, const std::vector<int32_t>& values) {
  return add_integers(shape, values);
}

Tensor CaseMemory::add_integers(Shape shape, const std::vector<int32_t>& values) {
  OCTET_CHECK(shape.num_elements() == static_cast<int64_t>(values.size()));
  Block& block = add("integers", DType::kI32, shape, Layout::kContiguous, 0);
  if (!values.empty()) std::memcpy(block.memory.data(), values.data(), values.size() * sizeof(int32_t));
  return uploaded(block);
}

Tensor CaseMemory::output(std::string name, DType dtype, Shape shape, Bound bound, Layout layout) {
  Block& block = add(std::move(name), dtype, shape, layout, kGuardBytes);
  block.bound = bound;
  block.is_output = true;
  return uploaded(block);
}

Tensor CaseMemory::in_out(std::string name, DType dtype, Shape shape, Bound bound, const Fill& fill, Layout layout) {
  Block& block = add(std::move(name), dtype, shape, layout, kGuardBytes);
  block.bound = bound;
  block.is_output = true;
  fill_block(block, fill);
  block.initial = block.memory;
  return uploaded(block);
}

Tensor CaseMemory::in_out(std::string name, const std::vector<int32_t>& values) {
  const Shape shape{static_cast<int64_t>(values.size())};
  Block& block = add(std::move(name), DType::kI32, shape, Layout::kContiguous, kGuardBytes);
  block.is_output = true;
  std::memcpy(block.view.bytes, values.data(), values.size() * sizeof(int32_t));
  block.initial = block.memory;
  return uploaded(block);
}

Tensor CaseMemory::scratch(DType dtype, Shape shape, const Fill& fill) {
  Block& block = add("scratch", dtype, shape, Layout::kContiguous, kGuardBytes);
  block.is_scratch = true;
  fill_block(block, fill);
  block.initial = block.memory;
  return uploaded(block);
}

void CaseMemory::written_before_step(const ConstTensor& argument) { block_of(argument).is_early = true; }

void CaseMemory::written_before_step(const ConstTensor& argument, const std::function<bool(int64_t)>& is_new) {
  Block& block = block_of(argument);
  OCTET_CHECK(block.view.contiguous());
  block.before_step = block.memory;
  const int64_t bytes = dtype_bytes(block.view.dtype);
  std::byte* const first = block.before_step.data() + (block.view.bytes - block.memory.data());
  for (int64_t i = 0; i < block.view.num_elements(); ++i) {
    if (is_new(i)) std::fill_n(first + i * bytes, bytes, std::byte{0});
  }
}

Tensor CaseMemory::add_zero_points(Shape shape) {
  std::vector<int32_t> values(static_cast<size_t>(shape.num_elements()));
  for (int32_t& value : values) value = static_cast<int32_t>(random_.between(-128, 127));
  return add_integers(shape, values);
}

ConstQuantTensor CaseMemory::quant_input(const QuantFormat& format, int64_t rows, int64_t cols, Layout layout) {
  if (!format.quantized()) return ConstQuantTensor(input(format.dtype, Shape{rows, cols}, normal_values, layout));
  // Codes of up to about 200 and scales that bring them back to about 1.
  const ConstTensor data = input(
      format.dtype, Shape{rows, cols}, [](Random& r) { return 64.0f * r.normal(); }, layout);
  const ConstTensor scale = input(DType::kF32, format.scale_shape(rows, cols),
                                  [](Random& r) { return static_cast<float>((0.5 + r.uniform()) / 64.0); });
  const bool is_early = format.granularity == Granularity::kTensor;  // a checkpoint's
  blocks_.back()->is_early = is_early;
  ConstQuantTensor tensor(data, scale, format);
  if (!format.zero_point) return tensor;
  tensor.zero_point = add_zero_points(scale.shape);
  blocks_.back()->is_early = is_early;
  return tensor;
}

ConstQuantTensor CaseMemory::quant_weight(const QuantFormat& format, int64_t rows, int64_t cols) {
  const size_t first = blocks_.size();
  const ConstQuantTensor tensor = quant_input(format, rows, cols);
  for (size_t i = first; i < blocks_.size(); ++i) blocks_[i]->is_early = true;
  return tensor;
}

QuantTensor CaseMemory::quant_output(const std::string& name, const QuantFormat& format, int64_t rows, int64_t cols,
                                     Bound f32, double share, Layout layout) {
  if (!format.quantized()) {
    return QuantTensor(output(name, format.dtype, Shape{rows, cols}, rounded_bound(format.dtype, f32), layout),
                       Tensor(), format);
  }
  // A zero point that is rounded the other way moves all codes of its row.
  const bool moves = share > 0.0 && format.zero_point && format.dynamic;
  const Tensor data =
      output(name, format.dtype, Shape{rows, cols}, Bound{.share_of_neighbours = moves ? 1.0 : share}, layout);
  const Shape scale_shape = format.scale_shape(rows, cols);
  const Bound of_scale =
      share > 0.0 ? Bound{.absolute = f32.absolute / 448.0, .relative = f32.relative + 0x1p-23} : kExact;
  const Tensor scale = format.dynamic ? output(name + ".scale", DType::kF32, scale_shape, of_scale)
                                      : in_out(name + ".scale", DType::kF32, scale_shape, kExact, [](Random& r) {
                                          return static_cast<float>((0.5 + r.uniform()) / 150.0);
                                        });
  const bool is_early = format.granularity == Granularity::kTensor && !format.dynamic;  // a checkpoint's
  blocks_.back()->is_early = is_early;
  QuantTensor tensor(data, scale, format);
  if (!format.zero_point) return tensor;
  if (format.dynamic) {
    const Bound bound{.absolute = moves ? 1.0 : 0.0};
    tensor.zero_point = output(name + ".zero_point", DType::kI32, scale_shape, bound);
  } else {
    tensor.zero_point = add_zero_points(scale_shape);
  }
  blocks_.back()->is_early = is_early;
  return tensor;
}

void CaseMemory::poison_outputs(std::byte poison) {
  for (const auto& block : blocks_) {
    if (!block->is_output && !block->is_scratch) continue;
    if (!block->initial.empty()) {
      std::copy(block->initial.begin(), block->initial.end(), block->memory.begin());
    } else {
      const int64_t bytes = dtype_bytes(block->view.dtype);
      for (int64_t i = 0; i < num_rows(block->view); ++i) {
        std::fill_n(block->view.bytes + row_begin(block->view, i) * bytes, row_elements(block->view) * bytes, poison);
      }
    }
  }
}

void CaseMemory::reset(std::byte poison) {
  poison_outputs(poison);
  for (const auto& block : blocks_) {
    if (block->is_output || block->is_scratch) uploaded(*block);
  }
}

void CaseMemory::reset_late(std::byte poison) {
  poison_outputs(poison);
  std::vector<LateWrite> writes;
  int64_t num_bytes = 0;
  for (const auto& block : blocks_) {
    if (block->is_early) {
      if (block->is_output) uploaded(*block);
      continue;
    }
    const auto size = static_cast<int64_t>(block->memory.size());
    writes.push_back({.to = block->on_gpu.data(), .from = block->memory.data(), .num_bytes = size});
    if (block->before_step.empty()) {
      fill_bytes(block->on_gpu.data(), std::byte{0}, size, stream_);
    } else {
      copy_bytes(block->on_gpu.data(), block->before_step.data(), size, stream_);
    }
    num_bytes += (size + 255) / 256 * 256;
  }
  late_ = Buffer(stream_.device, std::max<int64_t>(1, num_bytes), "what is written late");
  int64_t offset = 0;
  for (LateWrite& write : writes) {
    copy_bytes(late_.data() + offset, write.from, write.num_bytes, stream_);
    write.from = late_.data() + offset;
    offset += (write.num_bytes + 255) / 256 * 256;
  }
  write_late(writes, stream_);
}

CaseMemory::Snapshot CaseMemory::outputs() const {
  Snapshot snapshot;
  for (const auto& block : blocks_) {
    if (!block->is_output) continue;
    snapshot.push_back(block->memory);
    if (block->on_gpu.num_bytes() == 0) continue;
    std::vector<std::byte>& bytes = snapshot.back();
    copy_bytes(bytes.data(), block->on_gpu.data(), static_cast<int64_t>(bytes.size()), stream_);
  }
  synchronize(stream_);
  return snapshot;
}

std::string CaseMemory::differences(const Snapshot& expected, const Snapshot& found, double looseness) const {
  std::string text;
  size_t i = 0;
  for (const auto& block : blocks_) {
    if (!block->is_output) continue;
    text += difference(*block, expected[i], found[i], looseness);
    ++i;
  }
  return text;
}

std::string CaseMemory::difference(const Block& block, const std::vector<std::byte>& expected,
                                   const std::vector<std::byte>& found, double looseness) {
  const Tensor& view = block.view;
  const auto first = static_cast<size_t>(view.bytes - block.memory.data());
  const auto bytes = static_cast<size_t>(dtype_bytes(view.dtype));
  std::vector<bool> inside(found.size(), false);
  int64_t num_neighbours = 0;
  if (block.bound.strict) looseness = 1.0;
  const double relative = looseness > 1.0 ? std::max(block.bound.relative, 0x1p-8) : block.bound.relative;
  for (int64_t i = 0; i < num_rows(view); ++i) {
    for (int64_t k = 0; k < row_elements(view); ++k) {
      const int64_t at = row_begin(view, i) + k;
      const size_t byte = first + static_cast<size_t>(at) * bytes;
      std::fill_n(inside.begin() + static_cast<int64_t>(byte), bytes, true);
      const double want = element(expected.data() + first, view.dtype, at);
      const double got = element(found.data() + first, view.dtype, at);
      if (want == got || (std::isnan(want) && std::isnan(got))) continue;
      if (is_8_bit(view.dtype) && !std::isnan(want) && !std::isnan(got) &&
          std::abs(code_order(view.dtype, expected[byte]) - code_order(view.dtype, found[byte])) == 1) {
        ++num_neighbours;
        continue;
      }
      const double error = std::fabs(want - got);
      const double largest = std::max(std::fabs(want), std::fabs(got));
      const double allowed_error = is_8_bit(view.dtype) ? (looseness > 1.0 ? kLooseCodes + largest / 8.0 : 0.0)
                                                        : block.bound.absolute * looseness + relative * std::fabs(want);
      if (error <= allowed_error) continue;
      return fmt::format("{}: row {} element {}: expected {}, found {} (off by {:.3g})\n", block.name, i, k, want, got,
                         error);
    }
  }
  const double share = block.bound.share_of_neighbours;
  const double allowed = looseness > 1.0 ? 1e9
                         : share > 0.0   ? std::max(2.0, share * static_cast<double>(view.num_elements()))
                                         : 0.0;
  if (static_cast<double>(num_neighbours) > allowed) {
    return fmt::format("{}: {} of {} elements are a code away\n", block.name, num_neighbours, view.num_elements());
  }
  for (size_t i = 0; i < found.size(); ++i) {
    if (!inside[i] && found[i] != kGuard)
      return fmt::format("{}: byte {} outside its elements was written\n", block.name,
                         static_cast<int64_t>(i) - static_cast<int64_t>(first));
  }
  return "";
}

}  // namespace octet::ops_test
