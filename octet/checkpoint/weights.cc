#include "octet/checkpoint/weights.h"

#include <algorithm>
#include <cstring>

#include "octet/base/error.h"
#include "octet/base/log.h"
#include "octet/checkpoint/copy_matrix.h"
#include "octet/checkpoint/tensor_source.h"
#include "octet/quant/kv_scales.h"

namespace octet {
namespace {

constexpr size_t kMaxNamesListed = 20;

std::string list_names(const std::vector<std::string>& names) {
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), kMaxNamesListed); ++i) text += (i == 0 ? "" : ", ") + names[i];
  if (names.size() > kMaxNamesListed) text += fmt::format(" and {} more", names.size() - kMaxNamesListed);
  return text;
}

void fill_ones(Tensor out, ThreadPool& threads) {
  const std::vector<float> ones(static_cast<size_t>(out.num_elements()), 1.0f);
  const auto* bytes = reinterpret_cast<const std::byte*>(ones.data());
  copy_matrix(ConstTensor(bytes, DType::kF32, Shape{out.dim(0), out.dim(1)}), out, threads);
}

// A vector [N] as the matrix [N, 1]; matrices as they are.
template <class AnyTensor>
AnyTensor as_matrix(AnyTensor tensor) {
  return tensor.rank() == 2 ? tensor : tensor.reshape(Shape{tensor.num_elements(), 1});
}

}  // namespace

void fail_dtype(const SafetensorsFolder& files, const std::string& name, DType found, std::string_view expected) {
  fail(ErrorCode::kModel, "{}: dtype {}, expected {} (in {})", name, dtype_name(found), expected, files.file_of(name));
}

ConstTensor region_of(ConstTensor tensor, const Region& region) {
  return as_matrix(tensor).rows(region.first_row, region.num_rows).columns(region.first_column, region.num_columns);
}

const TensorEntry* TensorSource::find(std::string_view name) const {
  return dummy() ? nullptr : source_.files->find(name);
}

std::optional<ConstTensor> TensorSource::require(const std::string& name, std::span<const Shape> shapes) {
  if (!dummy() && find(name) == nullptr) source_.missing.push_back(name);
  return optional(name, shapes);
}

std::optional<ConstTensor> TensorSource::optional(const std::string& name, std::span<const Shape> shapes) {
  const TensorEntry* entry = find(name);
  if (entry == nullptr) return std::nullopt;
  if (std::find(shapes.begin(), shapes.end(), entry->shape) == shapes.end()) {
    std::string expected;
    for (const Shape& shape : shapes) expected += (expected.empty() ? "" : " or ") + shape.to_string();
    fail(ErrorCode::kModel, "{}: shape {}, config says {} (in {})", name, entry->shape.to_string(), expected,
         source_.files->file_of(name));
  }
  source_.consumed.insert(name);
  return source_.files->tensor(name);
}

void TensorSource::read(const std::string& name, Shape shape, Region region, Tensor out) {
  if (recording()) {
    require(name, std::span(&shape, 1));
    return;
  }
  if (dummy()) {
    if (shape.rank() == 1 && name.ends_with("norm.weight")) return fill_ones(as_matrix(out), *source_.threads);
    const DummyPlace place{.first_row = region.first_row,
                           .first_column = region.first_column,
                           .num_columns = shape.rank() == 2 ? shape[1] : 1};
    if (source_.dummies == WeightSource::Dummies::kTiled)
      return dummy_tile().fill(name, place, as_matrix(out), *source_.threads);
    return fill_dummy(name, place, as_matrix(out), *source_.threads);
  }
  const std::optional<ConstTensor> stored = require(name, std::span(&shape, 1));
  if (!stored) return;
  if (!is_real(stored->dtype)) fail_dtype(*source_.files, name, stored->dtype, "f32, bf16 or f16");
  const ConstTensor part = region_of(*stored, region);
  copy_matrix(part, as_matrix(out), *source_.threads);
  done(name, part.num_bytes());
}

const DummyTile& TensorSource::dummy_tile() {
  if (!source_.dummy_tile) source_.dummy_tile = std::make_shared<DummyTile>(*source_.threads);
  return *source_.dummy_tile;
}

void TensorSource::done(const std::string& name, int64_t bytes) {
  source_.on_progress(bytes);
  source_.files->drop_pages(name);
}

Weights Weights::operator/(std::string_view name) const { return Weights(source_, full_name(name)); }

std::string Weights::full_name(std::string_view name) const {
  return prefix_.empty() ? std::string(name) : fmt::format("{}.{}", prefix_, name);
}

bool Weights::has(std::string_view name) const {
  return source_.files != nullptr && source_.files->find(full_name(name)) != nullptr;
}

std::vector<std::string_view> Weights::names() const {
  std::vector<std::string_view> found;
  if (source_.files == nullptr) return found;
  const std::string prefix = prefix_ + ".";
  const auto& entries = source_.files->entries();
  for (auto it = entries.lower_bound(prefix); it != entries.end() && it->first.starts_with(prefix); ++it)
    found.push_back(std::string_view(it->first).substr(prefix.size()));
  return found;
}

void Weights::leave_to_other_ranks() const {
  for (const std::string_view name : names()) source_.consumed.insert(full_name(name));
}

Tensor Weights::parameter(std::string_view name, Shape shape, DType dtype) const {
  OCTET_CHECK(shape.rank() == 1 || shape.rank() == 2);
  const std::string full = full_name(name);
  const Tensor out = source_.allocate(dtype, shape, full);
  source_.weight_bytes += out.num_bytes();
  const Region whole{.num_rows = shape[0], .num_columns = shape.rank() == 2 ? shape[1] : 1};
  TensorSource(source_).read(full, shape, whole, out);
  return source_.place(out);
}

Tensor Weights::parameter_rows(std::string_view name, Shape full_shape, int64_t first, int64_t count,
                               DType dtype) const {
  OCTET_CHECK(full_shape.rank() == 2 && first >= 0 && count >= 0);
  const std::string full = full_name(name);
  const Tensor out = source_.allocate(dtype, Shape{count, full_shape[1]}, full);
  source_.weight_bytes += out.num_bytes();
  const int64_t num_stored = std::clamp<int64_t>(full_shape[0] - first, 0, count);
  const Region region{
      .first_row = std::min(first, full_shape[0]), .num_rows = num_stored, .num_columns = full_shape[1]};
  TensorSource(source_).read(full, full_shape, region, out.rows(0, num_stored));
  if (source_.mode == WeightSource::Mode::kRecord) return out;
  const Tensor padding = out.rows(num_stored, count - num_stored);
  std::memset(padding.bytes, 0, static_cast<size_t>(padding.num_bytes()));
  return source_.place(out);
}

void check_all_consumed(const WeightSource& source, const std::function<bool(std::string_view)>& ignorable) {
  if (source.files == nullptr) return;
  std::vector<std::string> left_over;
  for (const auto& [name, entry] : source.files->entries()) {
    // The cache's scales are no layer's: kv_cache_scales.h.
    if (!source.consumed.contains(name) && !ignorable(name) && !parse_kv_scale(name)) left_over.push_back(name);
  }
  if (!source.found_plain.empty()) {
    warn_once(
        fmt::format("{} modules are not in 8 bits although quantization_config says so, {} the first: loaded as "
                    "they are",
                    source.found_plain.size(), *source.found_plain.begin()));
  }
  std::string text;
  if (!source.missing.empty()) {
    text = fmt::format("{} tensors of the model are not in the checkpoint: {}", source.missing.size(),
                       list_names(source.missing));
  }
  if (!left_over.empty()) {
    text += fmt::format("{}{} tensors of the checkpoint have no place in the model: {}", text.empty() ? "" : "; ",
                        left_over.size(), list_names(left_over));
  }
  if (!text.empty()) fail(ErrorCode::kModel, "{}", text);
}

void warn_of_dequantised(const WeightSource& source) {
  std::string text;
  for (const auto& [formats, count] : source.dequantised)
    text += fmt::format("{}{} linears with {}", text.empty() ? "" : ", ", count, formats);
  if (text.empty()) return;
  log_warning("no fast kernel takes {}: they are held in {}, which needs more memory", text,
              dtype_name(source.plain_dtype));
}

}  // namespace octet
