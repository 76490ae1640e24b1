// QuantizePlan: what becomes of every tensor of a checkpoint, decided by names and shapes alone before any byte is
// read, so that no definition of the model is needed.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "octet/checkpoint/safetensors.h"
#include "octet/quant/dialect.h"
#include "octet/quantizer/named_scheme.h"
#include "octet/quantizer/recipe.h"

namespace octet {

struct PlannedLinear {
  std::string module;  // "model.layers.0.self_attn.q_proj"
  int64_t n = 0, k = 0;

  std::string weight() const { return module + ".weight"; }
};

// What is done at once: one tensor is copied, or linears that engines fuse, which share their input, are quantised.
struct PlannedUnit {
  std::string name;                  // the tensor's, or that of the first linear's module
  std::optional<int64_t> layer;      // "layers.<n>." of the name
  std::vector<PlannedLinear> parts;  // empty: copied
  NamedScheme scheme;                // of the parts
  std::string attention;             // the module of k_proj where that is in this unit and its cache gets scales
  int64_t source_bytes = 0;
};

struct QuantizePlan {
  std::string scheme;  // as the user named it
  WrittenQuant quant;
  const DialectWriter* writer = nullptr;
  Recipe recipe = Recipe::kNearest;
  int64_t num_kv_heads = 0;
  std::vector<PlannedUnit> units;    // in the order of the model
  std::vector<TensorEntry> entries;  // what is written, in that order
  int64_t source_bytes = 0;

  // The formats of all activations, for reports.
  std::string activations() const;
  std::string scale_name(const PlannedLinear& part) const {
    return fmt::format("{}.{}", part.module, writer->weight_scale);
  }
  // The names of all tensors that a unit writes.
  std::vector<std::string> written_by(const PlannedUnit& unit) const;
};

struct PlanRequest {
  NamedScheme scheme;
  // Of units, by their names, that have another scheme; one without weights: the unit stays as it is.
  std::map<std::string, NamedScheme> others = {};
  std::string dialect;  // see find_writer
  Recipe recipe = Recipe::kNearest;
  std::vector<std::string> ignore;  // of the user's
  std::optional<KvCacheQuant> kv_cache;
  int64_t num_kv_heads = 0;  // where kv_cache is per head
};

// Throws Error{kModel} for a checkpoint that is quantised already, Error{kUsage} for an entry of `ignore` that names
// nothing, or some only of linears that are fused, and for a dialect that cannot say the scheme.
QuantizePlan plan_quantization(const SafetensorsFolder& source, const PlanRequest& request);

// Whether `a` comes before `b` with numbers in names as numbers: layers.2 before layers.10.
bool comes_before(std::string_view a, std::string_view b);

}  // namespace octet
