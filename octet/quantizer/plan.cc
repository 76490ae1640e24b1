#include "octet/quantizer/plan.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <map>
#include <set>

#include "octet/base/error.h"
#include "octet/checkpoint/copy_matrix.h"
#include "octet/quant/module_pattern.h"

namespace octet {
namespace {

constexpr std::string_view kWeight = ".weight";

// Linears that read the same input and are one matrix in engines; of attention's a model has some.
constexpr std::array<std::array<std::string_view, 5>, 3> kFused = {
    {{"q_proj", "k_proj", "v_proj", "q_a_proj", "kv_a_proj_with_mqa"}, {"gate_proj", "up_proj"}, {"w1", "w3"}}};

std::string_view leaf_of(std::string_view module) { return module.substr(module.rfind('.') + 1); }
std::string_view parent_of(std::string_view module) {
  const size_t dot = module.rfind('.');
  return dot == std::string_view::npos ? std::string_view() : module.substr(0, dot);
}

bool is_embedding(std::string_view module) {
  const std::string_view leaf = leaf_of(module);
  return leaf.find("embed") != std::string_view::npos || leaf == "wte" || leaf == "wpe";
}

bool is_norm(std::string_view module) {
  const std::string_view leaf = leaf_of(module);
  return leaf.find("norm") != std::string_view::npos || leaf.starts_with("ln_");
}

// What stays as it is although it is a linear: the output projection, on which every token's choice hangs; routers,
// whose small errors send tokens to other experts; the small projections of linear attention; vision towers; draft
// heads.
const std::vector<ModulePattern>& kept_by_default() {
  static const std::vector<ModulePattern> patterns = [] {
    std::vector<ModulePattern> list;
    for (const char* entry :
         {"lm_head", "gate", "router", "shared_expert_gate", "in_proj_a", "in_proj_b", "re:(^|\\.)vision",
          "re:(^|\\.)visual", "re:multi_modal_projector", "re:(^|\\.)mtp(\\.|$)"})
      list.emplace_back(entry);
    return list;
  }();
  return patterns;
}

std::optional<int64_t> layer_of(std::string_view name) {
  constexpr std::string_view kLayers = "layers.";
  const size_t at = name.find(kLayers);
  if (at == std::string_view::npos) return std::nullopt;
  size_t end = at + kLayers.size();
  int64_t number = 0;
  const size_t begin = end;
  for (; end < name.size() && std::isdigit(static_cast<unsigned char>(name[end])) && end < begin + 9; ++end)
    number = number * 10 + (name[end] - '0');
  if (end == begin) return std::nullopt;
  return number;
}

// The names of a module's group: "…self_attn.q_proj" and "…k_proj" have the same key.
std::string group_key(std::string_view module) {
  const std::string_view leaf = leaf_of(module);
  for (size_t set = 0; set < kFused.size(); ++set) {
    if (std::find(kFused[set].begin(), kFused[set].end(), leaf) != kFused[set].end())
      return fmt::format("{}.<{}>", parent_of(module), set);
  }
  return std::string(module);
}

int64_t bytes_of(const TensorEntry& entry) { return entry.shape.num_elements() * dtype_bytes(entry.dtype); }

class Planner {
 public:
  Planner(const SafetensorsFolder& source, const PlanRequest& request) : source_(source), request_(request) {
    for (const std::string& entry : request.ignore) ignore_.emplace_back(entry);
    named_.resize(ignore_.size(), false);
  }

  void run(QuantizePlan& plan) {
    std::vector<const TensorEntry*> entries;
    for (const auto& [name, entry] : source_.entries()) entries.push_back(&entry);
    std::stable_sort(entries.begin(), entries.end(),
                     [](const TensorEntry* a, const TensorEntry* b) { return comes_before(a->name, b->name); });
    for (const TensorEntry* entry : entries) add(*entry, plan);
    check_ignore();
    check_groups();
    choose(plan);
    if (std::all_of(plan.units.begin(), plan.units.end(), [](const PlannedUnit& u) { return u.parts.empty(); })) {
      fail(ErrorCode::kUsage, "nothing to quantise: the checkpoint has no linear that is not ignored ({} tensors)",
           entries.size());
    }
    plan.quant.ignore.assign(kept_.begin(), kept_.end());
    std::sort(plan.quant.ignore.begin(), plan.quant.ignore.end(), comes_before);
  }

 private:
  void add(const TensorEntry& entry, QuantizePlan& plan) {
    if (!is_real(entry.dtype) && dtype_bytes(entry.dtype) == 1 && entry.dtype != DType::kBool) {
      fail(ErrorCode::kModel, "{}: dtype {}: the checkpoint is quantised already; quantise its source instead (in {})",
           entry.name, dtype_name(entry.dtype), source_.file_of(entry.name));
    }
    const int64_t bytes = bytes_of(entry);
    plan.source_bytes += bytes;
    const std::optional<std::string> module = linear_of(entry);
    if (!module) {
      plan.units.push_back({.name = entry.name, .layer = layer_of(entry.name), .parts = {}, .source_bytes = bytes});
      return;
    }
    const std::string key = group_key(*module);
    const auto [it, is_new] = index_.try_emplace(key, plan.units.size());
    if (is_new) plan.units.push_back({.name = *module, .layer = layer_of(*module), .parts = {}, .source_bytes = 0});
    PlannedUnit& unit = plan.units[it->second];
    unit.parts.push_back({.module = *module, .n = entry.shape[0], .k = entry.shape[1]});
    unit.source_bytes += bytes;
  }

  // The module of a tensor that is to be quantised.
  std::optional<std::string> linear_of(const TensorEntry& entry) {
    if (!entry.name.ends_with(kWeight) || entry.shape.rank() != 2 || !is_real(entry.dtype)) return std::nullopt;
    std::string module = entry.name.substr(0, entry.name.size() - kWeight.size());
    if (is_embedding(module) || is_norm(module) || entry.shape.num_elements() == 0) return std::nullopt;
    bool ignored = matches_any(kept_by_default(), module);
    for (size_t i = 0; i < ignore_.size(); ++i) {
      if (!ignore_[i].matches(module)) continue;
      named_[i] = true;
      ignored = true;
    }
    if (!ignored) return module;
    kept_.insert(module);
    kept_keys_.emplace(group_key(module), module);
    return std::nullopt;
  }

  // Gives every unit its scheme; one that is to stay as it is becomes copies of its weights.
  void choose(QuantizePlan& plan) {
    std::vector<PlannedUnit> units;
    for (PlannedUnit& unit : plan.units) {
      const auto it = unit.parts.empty() ? request_.others.end() : request_.others.find(unit.name);
      unit.scheme = it == request_.others.end() ? request_.scheme : it->second;
      if (unit.parts.empty() || unit.scheme.weights != nullptr) {
        units.push_back(std::move(unit));
        continue;
      }
      for (const PlannedLinear& part : unit.parts) {
        kept_.insert(part.module);
        const int64_t bytes = bytes_of(*source_.find(part.weight()));
        units.push_back({.name = part.weight(), .layer = unit.layer, .parts = {}, .source_bytes = bytes});
      }
    }
    plan.units = std::move(units);
  }

  void check_ignore() const {
    for (size_t i = 0; i < ignore_.size(); ++i) {
      const std::string& text = ignore_[i].text();
      if (!named_[i] && !ignore_[i].matches("lm_head"))
        fail(ErrorCode::kUsage, "ignore \"{}\": no linear of the checkpoint has such a name", text);
    }
  }

  void check_groups() const {
    for (const auto& [key, module] : kept_keys_) {
      if (index_.contains(key) && key != module) {
        fail(ErrorCode::kUsage,
             "{} is ignored, but not what it is fused with ({}): engines hold them as one matrix; ignore all or none",
             module, parent_of(module));
      }
    }
  }

  const SafetensorsFolder& source_;
  const PlanRequest& request_;
  std::vector<ModulePattern> ignore_;
  std::vector<bool> named_;                           // entries of the user's that name a linear
  std::set<std::string> kept_ = {"lm_head"};          // where it is tied, no tensor has its name
  std::map<std::string, std::string> kept_keys_;      // group -> a module of it that stays
  std::map<std::string, size_t, std::less<>> index_;  // group -> unit
};

// The attention module of a unit that holds, or copies, its k_proj.
std::string attention_of(const PlannedUnit& unit) {
  constexpr std::string_view kCopied = ".k_proj.weight";
  if (unit.parts.empty() && unit.name.ends_with(kCopied)) return unit.name.substr(0, unit.name.size() - kCopied.size());
  for (const PlannedLinear& part : unit.parts) {
    if (leaf_of(part.module) == "k_proj") return std::string(parent_of(part.module));
  }
  return "";
}

void add_entries(const SafetensorsFolder& source, QuantizePlan& plan) {
  const auto add_scale = [&](std::string name, Shape shape) {
    plan.entries.push_back({.name = std::move(name), .dtype = DType::kF32, .shape = shape});
  };
  for (PlannedUnit& unit : plan.units) {
    if (unit.parts.empty()) plan.entries.push_back(*source.find(unit.name));
    for (const PlannedLinear& part : unit.parts) {
      const QuantFormat format = unit.scheme.weights->weight_format();
      plan.entries.push_back({.name = part.weight(), .dtype = format.dtype, .shape = Shape{part.n, part.k}});
      add_scale(plan.scale_name(part), plan.writer->scale_shape(format, part.n, part.k));
      if (unit.scheme.static_activations()) add_scale(part.module + ".input_scale", plan.writer->scalar);
    }
    if (!plan.quant.kv_cache) continue;
    unit.attention = attention_of(unit);
    if (unit.attention.empty()) continue;
    const Shape shape = plan.quant.kv_cache->per_head ? Shape{plan.num_kv_heads, 1, 1} : plan.writer->scalar;
    add_scale(unit.attention + ".k_scale", shape);
    add_scale(unit.attention + ".v_scale", shape);
  }
}

// Units by their schemes, in the order in which they come.
std::vector<WrittenGroup> groups_of(const std::vector<PlannedUnit>& units) {
  std::vector<WrittenGroup> groups;
  for (const PlannedUnit& unit : units) {
    if (unit.parts.empty()) continue;
    const auto is_same = [&](const WrittenGroup& group) {
      return group.scheme == unit.scheme.weights && group.activation == unit.scheme.activation;
    };
    auto it = std::find_if(groups.begin(), groups.end(), is_same);
    if (it == groups.end())
      it = groups.insert(it, {.scheme = unit.scheme.weights, .activation = unit.scheme.activation, .modules = {}});
    for (const PlannedLinear& part : unit.parts) it->modules.push_back(part.module);
  }
  return groups;
}

}  // namespace

bool comes_before(std::string_view a, std::string_view b) {
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    if (is_digit(a[i]) && is_digit(b[j])) {
      const size_t i0 = i, j0 = j;
      while (i < a.size() && is_digit(a[i])) ++i;
      while (j < b.size() && is_digit(b[j])) ++j;
      std::string_view x = a.substr(i0, i - i0), y = b.substr(j0, j - j0);
      x.remove_prefix(std::min(x.find_first_not_of('0'), x.size() - 1));
      y.remove_prefix(std::min(y.find_first_not_of('0'), y.size() - 1));
      if (x.size() != y.size()) return x.size() < y.size();
      if (x != y) return x < y;
    } else if (a[i] != b[j]) {
      return a[i] < b[j];
    } else {
      ++i;
      ++j;
    }
  }
  if (a.size() - i != b.size() - j) return a.size() - i < b.size() - j;
  return a < b;  // "01" and "1"
}

std::string QuantizePlan::activations() const {
  std::string text;
  for (const WrittenGroup& group : quant.groups) text += (text.empty() ? "" : ", ") + group.activation.to_string();
  return text;
}

std::vector<std::string> QuantizePlan::written_by(const PlannedUnit& unit) const {
  std::vector<std::string> names;
  if (unit.parts.empty()) names.push_back(unit.name);
  for (const PlannedLinear& part : unit.parts) {
    names.push_back(part.weight());
    names.push_back(scale_name(part));
    if (unit.scheme.static_activations()) names.push_back(part.module + ".input_scale");
  }
  if (!unit.attention.empty()) {
    names.push_back(unit.attention + ".k_scale");
    names.push_back(unit.attention + ".v_scale");
  }
  return names;
}

QuantizePlan plan_quantization(const SafetensorsFolder& source, const PlanRequest& request) {
  QuantizePlan plan{.scheme = request.scheme.name, .recipe = request.recipe, .num_kv_heads = request.num_kv_heads};
  plan.quant = {.groups = {{.scheme = request.scheme.weights, .activation = request.scheme.activation, .modules = {}}},
                .ignore = {},
                .kv_cache = request.kv_cache};
  plan.writer = &find_writer(request.dialect, plan.quant);
  Planner(source, request).run(plan);
  if (!request.others.empty()) {
    plan.quant.groups = groups_of(plan.units);
    plan.writer = &find_writer(request.dialect, plan.quant);
  }
  add_entries(source, plan);
  return plan;
}

}  // namespace octet
