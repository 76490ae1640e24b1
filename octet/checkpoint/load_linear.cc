// Weights::linear: the parts of a fused linear, each read from disk in its scheme and put in memory in the linear's
// format.
#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "octet/base/error.h"
#include "octet/base/log.h"
#include "octet/checkpoint/copy_matrix.h"
#include "octet/checkpoint/linear_loader.h"
#include "octet/quant/weight_rows.h"

namespace octet {
namespace {

// Dummy static input scale: activations of a few units stay in range.
constexpr float kDummyInputScale = 0.02f;

struct LinearTensor {
  Tensor& tensor;
  std::string_view suffix;
};
std::array<LinearTensor, 5> tensors_of(LoadedLinear& linear) {
  return {LinearTensor{linear.weight.data, "weight"}, LinearTensor{linear.weight.scale, "weight_scale"},
          LinearTensor{linear.input_scale, "input_scale"}, LinearTensor{linear.input_zero_point, "input_zero_point"},
          LinearTensor{linear.bias, "bias"}};
}

}  // namespace

LoadedLinear allocate_linear(WeightSource& source, const LoadedLinear& described, std::string_view module) {
  LoadedLinear linear = described;
  for (const auto& [tensor, suffix] : tensors_of(linear)) {
    if (tensor.rank() == 0) continue;
    tensor = source.allocate(tensor.dtype, tensor.shape, fmt::format("{}.{}", module, suffix));
    source.weight_bytes += tensor.num_bytes();
    if (suffix.ends_with("_scale")) source.scale_bytes += tensor.num_bytes();
  }
  return linear;
}

LoadedLinear place_linear(WeightSource& source, LoadedLinear written) {
  for (const auto& [tensor, suffix] : tensors_of(written)) {
    if (tensor) tensor = source.place(tensor);
  }
  return written;
}

LinearLoader::LinearLoader(const Weights& weights, const LinearRequest& request)
    : weights_(weights), source_(weights.source()), tensors_(source_), request_(request), local_k_(request.k) {
  if (request_.shard == Shard::kRow) {
    if (request_.k % source_.world_size != 0) {
      fail(ErrorCode::kUnsupported, "{}: {} input channels cannot be split over {} ranks",
           weights_.full_name(request_.parts.at(0).name), request_.k, source_.world_size);
    }
    local_k_ = request_.k / source_.world_size;
    first_k_ = source_.rank * local_k_;
  }
  plan_parts();
  choose_format();
}

LoadedLinear LinearLoader::described() const {
  const auto shaped = [](DType dtype, Shape shape) { return Tensor(nullptr, dtype, shape); };
  LoadedLinear linear{
      .weight = QuantTensor(shaped(weight_format().dtype, Shape{total_n_, local_k_}), {}, weight_format()),
      .bias = {},
      .activation = activation(),
      .input_scale = {},
      .input_zero_point = {}};
  if (weight_format().quantized())
    linear.weight.scale = shaped(DType::kF32, weight_format().scale_shape(total_n_, local_k_));
  if (has_input_scale()) linear.input_scale = shaped(DType::kF32, Shape{1});
  if (has_input_scale() && activation().zero_point) linear.input_zero_point = shaped(DType::kI32, Shape{1});
  if (has_bias()) linear.bias = shaped(DType::kF32, Shape{total_n_});
  return linear;
}

LoadedLinear LinearLoader::load_into(const LoadedLinear& memory) {
  loaded_ = memory;
  if (loaded_.weight.scale && !tensors_.recording())  // rows that pad the matrix keep this
    std::fill_n(loaded_.weight.scale.data<float>(), loaded_.weight.scale.num_elements(), 1.0f);
  for (const PartPlan& plan : plans_) load_part(plan);
  load_input_scale();
  if (request_.bias) load_bias();
  return loaded_;
}

void LinearLoader::plan_parts() {
  for (const LinearPart& part : request_.parts) {
    const std::string module = part.stored_as.empty() ? weights_.full_name(part.name) : part.stored_as;
    plans_.push_back(PartPlan{.part = &part,
                              .module = module,
                              .scheme = scheme_of(part, module),
                              .offset = total_n_,
                              .num_stored = std::clamp<int64_t>(part.n - part.first_n, 0, part.local_n)});
    total_n_ += part.local_n;
  }
}

LinearScheme LinearLoader::plain_scheme() {
  const QuantScheme* plain = find_scheme("bf16");  // its format in memory becomes that of source.plain_dtype
  OCTET_CHECK(plain != nullptr);
  return {.on_disk = plain, .in_memory = plain, .activation = {}};
}

// The rule's scheme, corrected by what is on disk: the file's dtype is the truth about how a weight is stored.
LinearScheme LinearLoader::scheme_of(const LinearPart& part, const std::string& module) const {
  const std::string weight = part.stack ? part.stack->tensor : module + ".weight";
  const TensorEntry* entry = tensors_.find(weight);
  const auto stored = entry != nullptr ? std::optional(entry->dtype) : std::nullopt;
  LinearScheme scheme = source_.quant->scheme_for(weights_.full_name(part.name), stored);
  if (request_.keep_plain && (!stored || is_real(*stored))) return plain_scheme();
  if (entry == nullptr) return scheme;
  if (part.stack && !is_real(entry->dtype)) {
    fail(ErrorCode::kUnsupported,
         "{}: {}: experts in 8 bits that are stacked in one tensor are not supported, expected a tensor for each (in "
         "{})",
         weight, dtype_name(entry->dtype), source_.files->file_of(weight));
  }
  const bool rule_quantised = scheme.on_disk->weight_format().quantized();
  if (rule_quantised && is_real(entry->dtype)) {
    source_.found_plain.insert(module);
    return plain_scheme();
  }
  if (rule_quantised && entry->dtype != scheme.on_disk->weight_format().dtype) {
    fail_dtype(*source_.files, module + ".weight", entry->dtype,
               fmt::format("{}: quantization_config says {}", dtype_name(scheme.on_disk->weight_format().dtype),
                           scheme.on_disk->name()));
  }
  if (!rule_quantised && !is_real(entry->dtype)) {
    fail_dtype(*source_.files, module + ".weight", entry->dtype,
               "f32, bf16 or f16: quantization_config does not say that this module is quantised");
  }
  return scheme;
}

// A part that the file has plain beside one in 8 bits, although quantization_config says the same of both: damaged.
void LinearLoader::check_parts_agree_with_files() const {
  const PartPlan* plain = nullptr;
  const PartPlan* quantised = nullptr;
  for (const PartPlan& plan : plans_) {
    if (source_.found_plain.contains(plan.module)) plain = &plan;
    if (stored_quantised(plan)) quantised = &plan;
  }
  if (plain == nullptr || quantised == nullptr) return;
  fail(ErrorCode::kModel, "{}.weight is in 8 bits and {}.weight is not: quantization_config says {} for both",
       quantised->module, plain->module, quantised->scheme.on_disk->name());
}

// How a weight of `format` is held when it is fused and cut: scales get finer where they must, never other values.
// Nothing where they would have to be finer than any kernel takes.
std::optional<QuantFormat> LinearLoader::held_format(const QuantFormat& format) const {
  const QuantFormat channel = format.dtype == DType::kI8 ? kI8Channel : kF8Channel;
  if (format.granularity == Granularity::kTensor)
    return plans_.size() > 1 || format.dtype == DType::kI8 ? channel : format;
  const bool blocks = format.granularity == Granularity::kBlock;
  if (!blocks && format.granularity != Granularity::kGroup) return format;
  const bool cut = source_.world_size > 1;
  const bool columns_fit = local_k_ == request_.k || local_k_ % format.group_cols == 0;
  bool rows_fit = true;
  for (const PartPlan& plan : plans_) {
    if (!blocks) break;
    rows_fit = rows_fit && plan.offset % format.group_rows == 0 && plan.part->first_n % format.group_rows == 0 &&
               (!cut || request_.shard != Shard::kColumn || plan.part->local_n % format.group_rows == 0);
  }
  if (rows_fit && columns_fit) return format;
  // Every row has its blocks' scales. Columns that begin within a block have groups that divide it.
  constexpr int64_t kSmallestGroup = 32;
  const int64_t group = columns_fit ? format.group_cols : std::gcd<int64_t>(format.group_cols, local_k_);
  if (group < kSmallestGroup) return std::nullopt;
  return QuantFormat{
      .dtype = format.dtype, .granularity = Granularity::kGroup, .group_cols = static_cast<int32_t>(group)};
}

void LinearLoader::choose_format() {
  check_parts_agree_with_files();
  const LinearScheme& first = plans_.at(0).scheme;
  const bool agree = std::all_of(plans_.begin(), plans_.end(), [&](const PartPlan& plan) {
    return plan.scheme.in_memory == first.in_memory && plan.scheme.activation == first.activation;
  });
  if (!agree) {
    warn_once(fmt::format("{} and the parts it is fused with have different schemes: all are held in {}",
                          plans_[0].module, dtype_name(source_.plain_dtype)));
    return hold_in_plain();
  }
  QuantFormat format = first.in_memory->weight_format();
  loaded_.activation = first.activation_format();
  if (!format.quantized()) {
    loaded_.weight.format = plain_format(source_.plain_dtype);
    return;
  }
  const std::optional<QuantFormat> held = held_format(format);
  if (!held) return hold_in_plain_for_want_of_kernels(format);
  format = *held;
  loaded_.weight.format = format;
  // A group of activations lies within one of the weight's.
  if (format.granularity == Granularity::kGroup && loaded_.activation.granularity == Granularity::kGroup)
    loaded_.activation.group_cols = format.group_cols;
  if (runs_fast(format, loaded_.activation)) return;
  // Real numbers are larger but run; where no kernel is fast, as on an old processor, they would gain nothing.
  if (!runs_fast(plain_format(source_.plain_dtype), plain_format(DType::kF32))) return;
  hold_in_plain_for_want_of_kernels(format);
}

void LinearLoader::hold_in_plain_for_want_of_kernels(const QuantFormat& format) {
  const std::string cut = format.group_cols > 0 && source_.world_size > 1 ? " cut by ranks" : "";
  const std::string formats =
      fmt::format("{} weights{} and {} activations", format.to_string(), cut, loaded_.activation.to_string());
  source_.dequantised[formats] += static_cast<int64_t>(plans_.size());
  hold_in_plain();
}

void LinearLoader::hold_in_plain() {
  loaded_.weight.format = plain_format(source_.plain_dtype);
  loaded_.activation = plain_format(DType::kF32);
}

// Asks for the part's tensors without reading them.
void LinearLoader::record_part(const PartPlan& plan) {
  if (plan.part->stack) {
    find_weight(plan);
    return;
  }
  for (const StoredTensor& tensor : plan.scheme.on_disk->stored_tensors(plan.part->n, request_.k)) find(plan, tensor);
  if (stored_quantised(plan)) check_weight_zero_points(plan);
}

// Of a weight that is not in 8 bits: files of several producers have them beside a plain lm_head.
void LinearLoader::pass_over_scales(const PartPlan& plan) {
  for (const std::string_view suffix : {"weight_scale", "weight_scale_inv", "input_scale", "weight_zero_point"}) {
    const std::string name = fmt::format("{}.{}", plan.module, suffix);
    if (tensors_.find(name) == nullptr || !source_.consumed.insert(name).second) continue;
    warn_once(fmt::format("{} is not used: {}.weight is not in 8 bits", name, plan.module));
  }
}

void LinearLoader::load_part(const PartPlan& plan) {
  if (!stored_quantised(plan)) pass_over_scales(plan);
  if (tensors_.recording()) return record_part(plan);
  clear_padding(plan);
  if (tensors_.dummy()) return load_dummy(plan);
  if (stored_quantised(plan)) return load_stored(plan);
  const std::optional<ConstTensor> stored = find_weight(plan);
  if (!stored) return;
  const ConstTensor values = region_of(*stored, region(plan));
  if (!loaded_.weight.format.quantized()) {
    copy_matrix(values, target(plan), *source_.threads);
  } else if (reinterpret_cast<uintptr_t>(values.bytes) % static_cast<uintptr_t>(dtype_bytes(values.dtype)) == 0) {
    quantise(plan, values);
  } else {  // a file whose tensors are not aligned
    std::vector<std::byte> bytes(static_cast<size_t>(values.num_bytes()));
    const Tensor aligned(bytes.data(), values.dtype, values.shape);
    copy_matrix(values, aligned, *source_.threads);
    quantise(plan, aligned);
  }
  tensors_.done(weight_name(plan), values.num_bytes());
}

std::optional<ConstTensor> LinearLoader::find_weight(const PartPlan& plan) {
  const std::string name = weight_name(plan);
  const Shape shape{plan.part->n, request_.k};
  if (!plan.part->stack) return tensors_.require(name, std::span(&shape, 1));
  const LinearPart::Stack& stack = *plan.part->stack;
  const std::optional<ConstTensor> whole = tensors_.require(name, std::span(&stack.shape, 1));
  if (!whole) return std::nullopt;
  return whole->reshape(Shape{stack.shape[0] * stack.shape[1], stack.shape[2]}).rows(stack.first_row, plan.part->n);
}

void LinearLoader::load_dummy(const PartPlan& plan) {
  const std::string name = plan.module + ".weight";
  const Shape shape{plan.part->n, request_.k};
  const QuantFormat& format = loaded_.weight.format;
  if (!format.quantized() && !stored_quantised(plan)) return tensors_.read(name, shape, region(plan), target(plan));
  if (format.dtype == DType::kF8E4M3 && source_.dummies == WeightSource::Dummies::kTiled) {
    const Region part = region(plan);
    const DummyPlace place{.first_row = part.first_row, .first_column = part.first_column, .num_columns = request_.k};
    const Region part_at_0{.num_rows = part.num_rows, .num_columns = part.num_columns};
    tensors_.dummy_tile().fill(name, place, target(plan), *source_.threads);
    return put_scales(plan, ScaleGrid(kF8Tensor, part.num_rows, part.num_columns, {DummyTile::kF8Scale}), part_at_0);
  }
  std::vector<std::byte> bytes(static_cast<size_t>(plan.num_stored * local_k_ * dtype_bytes(DType::kBF16)));
  const Tensor values(bytes.data(), DType::kBF16, Shape{plan.num_stored, local_k_});
  tensors_.read(name, shape, region(plan), values);
  if (format.quantized()) {
    quantise(plan, values);
  } else {
    copy_matrix(values, target(plan), *source_.threads);
  }
}

void LinearLoader::quantise(const PartPlan& plan, ConstTensor values) {
  const QuantScheme& scheme = *plan.scheme.in_memory;
  const QuantFormat format = scheme.weight_format();
  if (format.granularity == Granularity::kBlock && loaded_.weight.format.granularity != Granularity::kBlock)
    return quantise_cut_blocks(plan, values);
  if (format.dtype == DType::kI8) refuse_nan(plan, values);
  const std::vector<float> maxima = shared_maxima(plan, values, format.granularity);
  const Shape scale_shape = format.scale_shape(plan.num_stored, local_k_);
  std::vector<float> scales(static_cast<size_t>(scale_shape.num_elements()));
  const Tensor scale(reinterpret_cast<std::byte*>(scales.data()), DType::kF32, scale_shape);
  if (plan.num_stored > 0) scheme.quantize(values, QuantTensor(target(plan), scale, format), *source_.threads, maxima);
  if (plan.num_stored == 0) return;
  put_scales(plan, ScaleGrid(format, plan.num_stored, local_k_, std::move(scales)),
             Region{.num_rows = plan.num_stored, .num_columns = local_k_});
}

// Blocks whose rows or columns lie on several ranks: their scales are of all of them, as one rank would have them.
void LinearLoader::quantise_cut_blocks(const PartPlan& plan, ConstTensor values) {
  const QuantFormat format = plan.scheme.in_memory->weight_format();
  const Shape blocks = format.scale_shape(plan.part->n, request_.k);
  ScaleGrid grid(format, plan.part->n, request_.k, std::vector<float>(static_cast<size_t>(blocks.num_elements())));
  const Region from = region(plan);
  take_maxima(values, from, grid);
  source_.all_reduce_max(grid.scales);
  for (float& scale : grid.scales) scale = weight_scale(std::max(scale, kMinBlockAmax));
  write_codes(grid, from, values, target(plan), *source_.threads);
  put_scales(plan, grid, from);
}

// Integers have no code for a NaN: it would be lost.
void LinearLoader::refuse_nan(const PartPlan& plan, ConstTensor values) const {
  std::atomic<int64_t> count = 0;
  for_each_weight_row(values, *source_.threads, [&](int64_t, std::span<float> row) {
    count += std::count_if(row.begin(), row.end(), [](float value) { return std::isnan(value); });
  });
  if (count > 0)
    fail(ErrorCode::kModel, "{}.weight: {} of its elements are NaN: expected numbers", plan.module, count.load());
}

// Where the scale of local values covers values of other ranks too: their common maxima. Empty otherwise.
std::vector<float> LinearLoader::shared_maxima(const PartPlan& plan, ConstTensor values, Granularity granularity) {
  if (granularity == Granularity::kBlock) return {};  // whole blocks
  const bool per_tensor = granularity == Granularity::kTensor;
  const bool shared = request_.shard == Shard::kRow || (request_.shard == Shard::kColumn && per_tensor);
  if (!shared || source_.world_size == 1) return {};
  std::vector<float> maxima(static_cast<size_t>(plan.num_stored));
  row_maxima(values, maxima, *source_.threads);
  if (per_tensor) {
    const float largest = maxima.empty() ? 0.0f : *std::max_element(maxima.begin(), maxima.end());
    maxima.assign(1, largest);
  }
  source_.all_reduce_max(maxima);
  return maxima;
}

// Weight and scales that the checkpoint has already quantised.
void LinearLoader::load_stored(const PartPlan& plan) {
  const QuantScheme& scheme = *plan.scheme.on_disk;
  std::optional<FoundTensor> weight, scale;
  for (const StoredTensor& tensor : scheme.stored_tensors(plan.part->n, request_.k)) {
    std::optional<FoundTensor> found = find(plan, tensor);
    if (tensor.role == WeightRole::kWeight) weight = std::move(found);
    if (tensor.role == WeightRole::kWeightScale) scale = std::move(found);
  }
  check_weight_zero_points(plan);
  if (!weight || !scale) return;  // recorded as missing
  const ScaleGrid scales(scheme.weight_format(), plan.part->n, request_.k, read_scales(*source_.files, *scale));
  const ConstTensor part = region_of(weight->data, region(plan));
  take_stored(plan, part, scales);
  tensors_.done(weight->name, part.num_bytes());
}

// Older compressed-tensors wrote them for symmetric weights too.
void LinearLoader::check_weight_zero_points(const PartPlan& plan) {
  const int64_t n = plan.part->n;
  const auto found = find(plan, {.suffixes = {"weight_zero_point"},
                                 .role = WeightRole::kWeightZeroPoint,
                                 .dtypes = {DType::kI8, DType::kI32, DType::kI64, DType::kF8E4M3},
                                 .shapes = {Shape{}, Shape{1}, Shape{n}, Shape{n, 1}},
                                 .presence = StoredTensor::Presence::kOptional});
  if (!found || tensors_.recording()) return;
  for (const int32_t point : read_zero_points(*found)) {
    if (point != 0)
      fail(ErrorCode::kModel, "{}: a zero point is {}, expected zeros: quantization_config says symmetric", found->name,
           point);
  }
}

void LinearLoader::take_stored(const PartPlan& plan, ConstTensor weight, const ScaleGrid& scales) {
  NanCodes nans;
  const Region from = region(plan);
  if (loaded_.weight.format.quantized()) {
    OCTET_CHECK(weight.dtype == loaded_.weight.format.dtype);
    nans = copy_codes(weight, target(plan), *source_.threads);
    put_scales(plan, scales, from);
  } else {  // held as real numbers
    if (weight.dtype == DType::kF8E4M3) nans = find_nan_codes(weight, *source_.threads);
    write_real(scales, from, weight, target(plan), *source_.threads);
  }
  if (nans.count == 0) return;
  const std::string name = plan.module + ".weight";
  fail(ErrorCode::kModel,
       "{}: {} of its f8_e4m3 codes are NaN (0x7f or 0xff), the first at [{}, {}]: expected numbers (in {})", name,
       nans.count, from.first_row + nans.first_row, from.first_column + nans.first_column,
       source_.files->file_of(name));
}

// `from`: the part's place in what `scales` are of.
void LinearLoader::put_scales(const PartPlan& plan, const ScaleGrid& scales, const Region& from) {
  const QuantFormat& format = loaded_.weight.format;
  const Tensor& to = loaded_.weight.scale;
  if (plan.num_stored == 0) return;
  if (format.granularity == Granularity::kTensor) return write_scales(scales, from, format, to);
  const int64_t rows = format.granularity == Granularity::kBlock ? format.group_rows : 1;
  write_scales(scales, from, format, to.rows(plan.offset / rows, (plan.num_stored + rows - 1) / rows));
}

void LinearLoader::clear_padding(const PartPlan& plan) {
  const int64_t num_padded = plan.part->local_n - plan.num_stored;
  if (num_padded == 0) return;
  const Tensor padding = loaded_.weight.data.rows(plan.offset + plan.num_stored, num_padded);
  std::memset(padding.bytes, 0, static_cast<size_t>(padding.num_bytes()));
}

// The parts share one input, so that they share one range: the smallest that holds all of theirs.
void LinearLoader::load_input_scale() {
  const QuantFormat& format = loaded_.activation;
  const bool wanted = has_input_scale();
  float low = 0.0f, high = 0.0f, largest = 0.0f;
  std::optional<std::pair<float, int32_t>> first;
  bool differ = false;
  for (const PartPlan& plan : plans_) {
    if (!stored_quantised(plan) || tensors_.dummy()) continue;
    // Found even when they are not wanted: an unused scale is no left-over.
    const std::vector<StoredTensor> tensors = stored_input_tensors(wanted ? format : QuantFormat{});
    const std::optional<FoundTensor> scale = find(plan, tensors.at(0)), point = find(plan, tensors.at(1));
    if (!scale || !wanted || tensors_.recording()) continue;
    const float step = read_scales(*source_.files, *scale).at(0);
    const int32_t zero = point ? read_zero_points(*point).at(0) : 0;
    if (zero < -128 || zero > 127 || (zero != 0 && !format.zero_point)) {
      fail(ErrorCode::kModel, "{}: the zero point is {}, expected {} (in {})", point->name, zero,
           format.zero_point ? "-128 to 127" : "0: quantization_config says symmetric",
           source_.files->file_of(point->name));
    }
    const auto own = std::pair(step, zero);
    differ = differ || (first && *first != own);
    if (!first) first = own;
    largest = std::max(largest, step);
    low = std::min(low, static_cast<float>(-128 - zero) * step);
    high = std::max(high, static_cast<float>(127 - zero) * step);
  }
  if (!wanted) return;
  if (differ) {
    warn_once(fmt::format("{} and the parts it is fused with have different input scales: the largest range is used",
                          plans_[0].module));
  }
  float scale = tensors_.dummy() ? kDummyInputScale : largest;
  int32_t zero = first ? first->second : 0;
  if (differ && format.zero_point) {
    scale = (high - low) / 255.0f;
    zero = static_cast<int32_t>(std::nearbyint(-128.0f - low / scale));
  }
  loaded_.input_scale.data<float>()[0] = scale;
  if (format.zero_point) loaded_.input_zero_point.data<int32_t>()[0] = zero;
}

void LinearLoader::load_bias() {
  if (!has_bias()) {
    for (const PartPlan& plan : plans_) source_.consumed.insert(plan.module + ".bias");
    return;
  }
  for (const PartPlan& plan : plans_) {
    float* first = loaded_.bias.data<float>() + plan.offset;
    std::fill_n(first, plan.part->local_n, 0.0f);
    Region rows = region(plan);
    rows.first_column = 0;
    rows.num_columns = 1;
    tensors_.read(plan.module + ".bias", Shape{plan.part->n}, rows, loaded_.bias.rows(plan.offset, plan.num_stored));
  }
}

LoadedLinear Weights::linear(const LinearRequest& request) const {
  LinearLoader loader(*this, request);
  return place_linear(source_, loader.load_into(allocate_linear(source_, loader.described(), loader.module())));
}

}  // namespace octet
