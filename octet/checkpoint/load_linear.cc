// Weights::linear: the parts of a fused linear, each read from disk in its scheme and put in memory in the linear's
// format.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "octet/base/error.h"
#include "octet/base/log.h"
#include "octet/checkpoint/copy_matrix.h"
#include "octet/checkpoint/tensor_source.h"

namespace octet {
namespace {

// Dummy static input scale: activations of a few units stay in range.
constexpr float kDummyInputScale = 0.02f;

class LinearLoader {
 public:
  LinearLoader(const Weights& weights, const LinearRequest& request)
      : weights_(weights), source_(weights.source()), tensors_(source_), request_(request) {}

  LoadedLinear load();

 private:
  // A part, its scheme and its place in the fused matrix.
  struct PartPlan {
    const LinearPart* part;
    std::string module;  // full name of its tensors without ".weight"
    LinearScheme scheme;
    int64_t offset;      // first row in the fused matrix
    int64_t num_stored;  // local rows that exist on disk
  };

  void plan_parts();
  void hold_in_plain();
  bool runs_fast(const QuantFormat& weight, const QuantFormat& activation) const {
    return !source_.runs_fast || source_.runs_fast(weight, activation, total_n_, local_k_);
  }
  LinearScheme scheme_of(const std::string& rule_name, const std::string& module) const;
  bool stored_quantised(const PartPlan& plan) const { return plan.scheme.on_disk->weight_format().quantized(); }
  void choose_format();
  void load_part(const PartPlan& plan);
  void record_part(const PartPlan& plan);
  void load_stored(const PartPlan& plan);
  void take_stored(const PartPlan& plan, ConstTensor weight, const std::vector<float>& scales);
  void load_real(const PartPlan& plan, ConstTensor values);
  void quantise(const PartPlan& plan, ConstTensor values);
  std::vector<float> shared_maxima(const PartPlan& plan, ConstTensor values, Granularity granularity);
  std::vector<float> stored_scales(const PartPlan& plan, ConstTensor stored, const std::string& name) const;
  void write_scales(const PartPlan& plan, const std::vector<float>& scales);
  void clear_padding(const PartPlan& plan);
  void load_input_scale();
  void load_bias();
  Tensor allocate(DType dtype, Shape shape, std::string_view suffix);

  Region region(const PartPlan& plan) const {
    return Region{.first_row = std::min(plan.part->first_n, plan.part->n),
                  .num_rows = plan.num_stored,
                  .first_column = first_k_,
                  .num_columns = local_k_};
  }
  // The rows of the fused weight that the part's stored rows go to.
  Tensor target(const PartPlan& plan) const { return loaded_.weight.data.rows(plan.offset, plan.num_stored); }

  const Weights& weights_;
  WeightSource& source_;
  TensorSource tensors_;
  const LinearRequest& request_;
  std::vector<PartPlan> plans_;
  int64_t total_n_ = 0;
  int64_t first_k_ = 0;
  int64_t local_k_ = 0;
  LoadedLinear loaded_;
};

LoadedLinear LinearLoader::load() {
  local_k_ = request_.k;
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
  loaded_.weight.data = allocate(loaded_.weight.format.dtype, Shape{total_n_, local_k_}, "weight");
  if (loaded_.weight.format.quantized()) {
    loaded_.weight.scale = allocate(DType::kF32, loaded_.weight.format.scale_shape(total_n_, local_k_), "weight_scale");
    source_.scale_bytes += loaded_.weight.scale.num_bytes();
  }
  for (const PartPlan& plan : plans_) load_part(plan);
  load_input_scale();
  if (request_.bias) load_bias();
  for (Tensor* tensor : {&loaded_.weight.data, &loaded_.weight.scale, &loaded_.input_scale, &loaded_.bias}) {
    if (*tensor) *tensor = source_.place(*tensor);
  }
  return loaded_;
}

Tensor LinearLoader::allocate(DType dtype, Shape shape, std::string_view suffix) {
  const Tensor tensor = source_.allocate(dtype, shape, fmt::format("{}.{}", plans_.at(0).module, suffix));
  source_.weight_bytes += tensor.num_bytes();
  return tensor;
}

void LinearLoader::plan_parts() {
  for (const LinearPart& part : request_.parts) {
    const std::string rule_name = weights_.full_name(part.name);
    const std::string module = part.stored_as.empty() ? rule_name : part.stored_as;
    plans_.push_back(PartPlan{.part = &part,
                              .module = module,
                              .scheme = scheme_of(rule_name, module),
                              .offset = total_n_,
                              .num_stored = std::clamp<int64_t>(part.n - part.first_n, 0, part.local_n)});
    total_n_ += part.local_n;
  }
}

// The rule's scheme, corrected by what is on disk: the file's dtype is the truth about how a weight is stored.
LinearScheme LinearLoader::scheme_of(const std::string& rule_name, const std::string& module) const {
  LinearScheme scheme = source_.quant->scheme_for(rule_name);
  const TensorEntry* entry = tensors_.find(module + ".weight");
  if (entry == nullptr) return scheme;
  const bool rule_quantised = scheme.on_disk->weight_format().quantized();
  if (rule_quantised && is_real(entry->dtype)) {
    const QuantScheme* plain = find_scheme("bf16");  // its format in memory becomes that of source.plain_dtype
    OCTET_CHECK(plain != nullptr);
    warn_once(fmt::format("{}.weight is {} although quantization_config says {}: loaded as it is", module,
                          dtype_name(entry->dtype), scheme.on_disk->name()));
    return LinearScheme{.on_disk = plain, .in_memory = plain};
  }
  if (!rule_quantised && !is_real(entry->dtype)) {
    fail_dtype(*source_.files, module + ".weight", entry->dtype,
               "f32, bf16 or f16: quantization_config does not say that this module is quantised");
  }
  return scheme;
}

void LinearLoader::choose_format() {
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
  if (format.granularity == Granularity::kTensor && plans_.size() > 1) format = kF8Channel;
  loaded_.weight.format = format;
  if (runs_fast(format, loaded_.activation)) return;
  // Real numbers are larger but run; where no kernel is fast, as on an old processor, they would gain nothing.
  if (!runs_fast(plain_format(source_.plain_dtype), plain_format(DType::kF32))) return;
  const std::string formats =
      fmt::format("{} weights and {} activations", format.to_string(), loaded_.activation.to_string());
  source_.dequantised[formats] += static_cast<int64_t>(plans_.size());
  hold_in_plain();
}

void LinearLoader::hold_in_plain() {
  loaded_.weight.format = plain_format(source_.plain_dtype);
  loaded_.activation = plain_format(DType::kF32);
}

// Asks for the part's tensors without reading them.
void LinearLoader::record_part(const PartPlan& plan) {
  for (const StoredTensor& tensor : plan.scheme.on_disk->stored_tensors(plan.part->n, request_.k)) {
    if (tensor.role == WeightRole::kInputScale) continue;  // load_input_scale
    const std::string name = fmt::format("{}.{}", plan.module, tensor.suffix);
    if (tensor.presence == StoredTensor::Presence::kRequired) {
      tensors_.require(name, tensor.shapes);
    } else {
      tensors_.optional(name, tensor.shapes);
    }
  }
}

void LinearLoader::load_part(const PartPlan& plan) {
  if (tensors_.recording()) return record_part(plan);
  clear_padding(plan);
  const std::string name = plan.module + ".weight";
  const Shape shape{plan.part->n, request_.k};
  if (!loaded_.weight.format.quantized() && !stored_quantised(plan))
    return tensors_.read(name, shape, region(plan), target(plan));
  if (tensors_.dummy() && loaded_.weight.format.quantized() && source_.dummies == WeightSource::Dummies::kTiled) {
    const Region part = region(plan);
    const DummyPlace place{.first_row = part.first_row, .first_column = part.first_column, .num_columns = request_.k};
    tensors_.dummy_tile().fill(name, place, target(plan), *source_.threads);
    return write_scales(plan, {DummyTile::kF8Scale});
  }
  if (tensors_.dummy()) {
    std::vector<std::byte> bytes(static_cast<size_t>(plan.num_stored * local_k_ * dtype_bytes(DType::kBF16)));
    const Tensor values(bytes.data(), DType::kBF16, Shape{plan.num_stored, local_k_});
    tensors_.read(name, shape, region(plan), values);
    return load_real(plan, values);
  }
  if (stored_quantised(plan)) return load_stored(plan);
  const std::optional<ConstTensor> stored = tensors_.require(name, std::span(&shape, 1));
  if (!stored) return;
  const ConstTensor values = region_of(*stored, region(plan));
  if (reinterpret_cast<uintptr_t>(values.bytes) % static_cast<uintptr_t>(dtype_bytes(values.dtype)) == 0) {
    load_real(plan, values);
  } else {  // a file whose tensors are not aligned
    std::vector<std::byte> bytes(static_cast<size_t>(values.num_bytes()));
    const Tensor aligned(bytes.data(), values.dtype, values.shape);
    copy_matrix(values, aligned, *source_.threads);
    load_real(plan, aligned);
  }
  tensors_.done(name, values.num_bytes());
}

// Real numbers into the linear's format.
void LinearLoader::load_real(const PartPlan& plan, ConstTensor values) {
  if (loaded_.weight.format.quantized()) {
    quantise(plan, values);
  } else {
    copy_matrix(values, target(plan), *source_.threads);
  }
}

void LinearLoader::quantise(const PartPlan& plan, ConstTensor values) {
  const QuantScheme& scheme = *plan.scheme.in_memory;
  const QuantFormat format = scheme.weight_format();
  if (format.granularity != Granularity::kTensor && format.granularity != Granularity::kChannel) {
    fail(ErrorCode::kUnsupported, "{}: quantising to {} while loading", plan.module, format.to_string());
  }
  const std::vector<float> maxima = shared_maxima(plan, values, format.granularity);
  const Shape scale_shape = format.scale_shape(plan.num_stored, local_k_);
  std::vector<float> scales(static_cast<size_t>(scale_shape.num_elements()));
  const Tensor scale(reinterpret_cast<std::byte*>(scales.data()), DType::kF32, scale_shape);
  if (plan.num_stored > 0) scheme.quantize(values, QuantTensor(target(plan), scale, format), *source_.threads, maxima);
  write_scales(plan, scales);
}

// Where the scale of local values covers values of other ranks too: their common maxima. Empty otherwise.
std::vector<float> LinearLoader::shared_maxima(const PartPlan& plan, ConstTensor values, Granularity granularity) {
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
  std::optional<ConstTensor> weight;
  std::vector<float> scales;
  for (const StoredTensor& tensor : scheme.stored_tensors(plan.part->n, request_.k)) {
    if (tensor.role == WeightRole::kInputScale) continue;  // load_input_scale
    const std::string name = fmt::format("{}.{}", plan.module, tensor.suffix);
    const bool required = tensor.presence == StoredTensor::Presence::kRequired;
    const std::optional<ConstTensor> stored =
        required ? tensors_.require(name, tensor.shapes) : tensors_.optional(name, tensor.shapes);
    if (!stored) continue;
    if (std::find(tensor.dtypes.begin(), tensor.dtypes.end(), stored->dtype) == tensor.dtypes.end()) {
      fail_dtype(*source_.files, name, stored->dtype,
                 fmt::format("{} for scheme {}", dtype_name(tensor.dtypes.at(0)), scheme.name()));
    }
    if (tensor.role == WeightRole::kWeight) weight = region_of(*stored, region(plan));
    if (tensor.role == WeightRole::kWeightScale) scales = stored_scales(plan, *stored, name);
  }
  if (!weight || scales.empty()) return;  // recorded as missing
  take_stored(plan, *weight, scales);
  tensors_.done(plan.module + ".weight", weight->num_bytes());
}

void LinearLoader::take_stored(const PartPlan& plan, ConstTensor weight, const std::vector<float>& scales) {
  NanCodes nans;
  if (loaded_.weight.format.quantized()) {
    OCTET_CHECK(weight.dtype == loaded_.weight.format.dtype);
    nans = copy_codes(weight, target(plan), *source_.threads);
    write_scales(plan, scales);
  } else {  // held as real numbers
    nans = find_nan_codes(weight, *source_.threads);
    const QuantFormat format = scales.size() == 1 ? kF8Tensor : kF8Channel;
    const ConstTensor scale(reinterpret_cast<const std::byte*>(scales.data()), DType::kF32,
                            Shape{static_cast<int64_t>(scales.size())});
    plan.scheme.on_disk->dequantize(ConstQuantTensor(weight, scale, format), target(plan), *source_.threads);
  }
  if (nans.count == 0) return;
  const std::string name = plan.module + ".weight";
  const Region from = region(plan);
  fail(ErrorCode::kModel,
       "{}: {} of its f8_e4m3 codes are NaN (0x7f or 0xff), the first at [{}, {}]: expected numbers (in {})", name,
       nans.count, from.first_row + nans.first_row, from.first_column + nans.first_column,
       source_.files->file_of(name));
}

// One scale, or one for each of this rank's rows, checked.
std::vector<float> LinearLoader::stored_scales(const PartPlan& plan, ConstTensor stored,
                                               const std::string& name) const {
  const int64_t count = stored.num_elements();
  std::vector<float> all(static_cast<size_t>(count));
  const Tensor values(reinterpret_cast<std::byte*>(all.data()), DType::kF32, Shape{count, 1});
  copy_matrix(ConstTensor(stored.bytes, stored.dtype, Shape{count, 1}), values, *source_.threads);
  for (const float scale : all) {
    if (!std::isfinite(scale) || scale < 0.0f) fail(ErrorCode::kModel, "{}: a scale is {}", name, scale);
  }
  if (count == 1 && plan.part->n != 1) return all;
  const auto first = all.begin() + std::min(plan.part->first_n, plan.part->n);
  return std::vector<float>(first, first + plan.num_stored);
}

// `scales`: one, or one per stored row of the part.
void LinearLoader::write_scales(const PartPlan& plan, const std::vector<float>& scales) {
  float* to = loaded_.weight.scale.data<float>();
  if (loaded_.weight.format.granularity == Granularity::kTensor) {
    OCTET_CHECK(scales.size() == 1);
    to[0] = scales[0];
    return;
  }
  OCTET_CHECK(scales.size() == 1 || static_cast<int64_t>(scales.size()) == plan.num_stored);
  for (int64_t r = 0; r < plan.num_stored; ++r)
    to[plan.offset + r] = scales.size() == 1 ? scales[0] : scales[static_cast<size_t>(r)];
}

void LinearLoader::clear_padding(const PartPlan& plan) {
  const int64_t num_padded = plan.part->local_n - plan.num_stored;
  if (num_padded == 0) return;
  const Tensor padding = loaded_.weight.data.rows(plan.offset + plan.num_stored, num_padded);
  std::memset(padding.bytes, 0, static_cast<size_t>(padding.num_bytes()));
  if (loaded_.weight.format.granularity != Granularity::kChannel) return;
  std::fill_n(loaded_.weight.scale.data<float>() + plan.offset + plan.num_stored, num_padded, 1.0f);
}

void LinearLoader::load_input_scale() {
  const bool wanted = loaded_.activation.granularity == Granularity::kTensor && !loaded_.activation.dynamic;
  float largest = 0.0f;
  bool differ = false;
  const Shape shapes[] = {Shape{}, Shape{1}};
  for (const PartPlan& plan : plans_) {
    if (!stored_quantised(plan) || tensors_.dummy()) continue;
    const std::string name = plan.module + ".input_scale";
    // Read even when it is not wanted: an unused scale is no left-over.
    const auto stored = wanted ? tensors_.require(name, shapes) : tensors_.optional(name, shapes);
    if (!stored || !wanted) continue;
    if (!is_real(stored->dtype)) fail_dtype(*source_.files, name, stored->dtype, "f32");
    float scale = 0.0f;
    copy_matrix(ConstTensor(stored->bytes, stored->dtype, Shape{1, 1}),
                Tensor(reinterpret_cast<std::byte*>(&scale), DType::kF32, Shape{1, 1}), *source_.threads);
    if (!std::isfinite(scale) || scale <= 0.0f) fail(ErrorCode::kModel, "{}: the scale is {}", name, scale);
    differ = differ || (largest > 0.0f && scale != largest);
    largest = std::max(largest, scale);
  }
  if (!wanted) return;
  if (differ) {
    warn_once(fmt::format("{} and the parts it is fused with have different input scales: the largest is used",
                          plans_[0].module));
  }
  loaded_.input_scale = allocate(DType::kF32, Shape{1}, "input_scale");
  source_.scale_bytes += loaded_.input_scale.num_bytes();
  loaded_.input_scale.data<float>()[0] = tensors_.dummy() ? kDummyInputScale : largest;
}

void LinearLoader::load_bias() {
  if (request_.shard == Shard::kRow && source_.rank != 0) {
    for (const PartPlan& plan : plans_) source_.consumed.insert(plan.module + ".bias");
    return;
  }
  loaded_.bias = allocate(DType::kF32, Shape{total_n_}, "bias");
  for (const PartPlan& plan : plans_) {
    float* first = loaded_.bias.data<float>() + plan.offset;
    std::fill_n(first, plan.part->local_n, 0.0f);
    Region rows = region(plan);
    rows.first_column = 0;
    rows.num_columns = 1;
    tensors_.read(plan.module + ".bias", Shape{plan.part->n}, rows, loaded_.bias.rows(plan.offset, plan.num_stored));
  }
}

}  // namespace

LoadedLinear Weights::linear(const LinearRequest& request) const { return LinearLoader(*this, request).load(); }

}  // namespace octet
