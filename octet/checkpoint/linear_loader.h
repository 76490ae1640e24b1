// LinearLoader: the parts of one fused linear, each read from disk in its scheme and put in memory in the linear's
// format. Internal to octet/checkpoint.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "octet/checkpoint/stored_scales.h"
#include "octet/checkpoint/tensor_source.h"

namespace octet {

class LinearLoader {
 public:
  // All outlive the loader. Decides how the linear is held.
  LinearLoader(const Weights& weights, const LinearRequest& request);

  const std::string& module() const { return plans_.at(0).module; }  // of the first part, by its full name
  const QuantFormat& weight_format() const { return loaded_.weight.format; }
  const QuantFormat& activation() const { return loaded_.activation; }
  // As real numbers, whatever the file has.
  void hold_in_plain();

  // Its tensors as they are to be allocated: shapes without memory; those that it does not have without a shape.
  LoadedLinear described() const;
  // Reads everything into tensors of these shapes, which must outlive the loader.
  LoadedLinear load_into(const LoadedLinear& memory);

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
  bool runs_fast(const QuantFormat& weight, const QuantFormat& activation) const {
    return !source_.runs_fast || source_.runs_fast(weight, activation, total_n_, local_k_);
  }
  static LinearScheme plain_scheme();
  LinearScheme scheme_of(const LinearPart& part, const std::string& module) const;
  bool stored_quantised(const PartPlan& plan) const { return plan.scheme.on_disk->weight_format().quantized(); }
  void choose_format();
  std::optional<QuantFormat> held_format(const QuantFormat& format) const;
  void hold_in_plain_for_want_of_kernels(const QuantFormat& format);
  void check_parts_agree_with_files() const;
  void load_part(const PartPlan& plan);
  void record_part(const PartPlan& plan);
  void load_dummy(const PartPlan& plan);
  void pass_over_scales(const PartPlan& plan);
  void load_stored(const PartPlan& plan);
  void take_stored(const PartPlan& plan, ConstTensor weight, const ScaleGrid& scales);
  std::optional<FoundTensor> find(const PartPlan& plan, const StoredTensor& tensor) {
    return find_stored(tensors_, source_.files, plan.module, tensor);
  }
  void quantise(const PartPlan& plan, ConstTensor values);
  void quantise_cut_blocks(const PartPlan& plan, ConstTensor values);
  void refuse_nan(const PartPlan& plan, ConstTensor values) const;
  std::vector<float> shared_maxima(const PartPlan& plan, ConstTensor values, Granularity granularity);
  void check_weight_zero_points(const PartPlan& plan);
  void put_scales(const PartPlan& plan, const ScaleGrid& scales, const Region& from);
  void clear_padding(const PartPlan& plan);
  bool has_input_scale() const {
    return loaded_.activation.granularity == Granularity::kTensor && !loaded_.activation.dynamic;
  }
  void load_input_scale();
  // A bias that is split along K is added once.
  bool has_bias() const { return request_.bias && (request_.shard != Shard::kRow || source_.rank == 0); }
  void load_bias();
  // The tensor on disk that holds a part's weight, and the part of it as [n, k].
  std::string weight_name(const PartPlan& plan) const {
    return plan.part->stack ? plan.part->stack->tensor : plan.module + ".weight";
  }
  std::optional<ConstTensor> find_weight(const PartPlan& plan);

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

// Memory for every tensor that `described` has a shape for, under names that begin with `module`; accounted for.
LoadedLinear allocate_linear(WeightSource& source, const LoadedLinear& described, std::string_view module);
// Where kernels read them.
LoadedLinear place_linear(WeightSource& source, LoadedLinear written);

}  // namespace octet
