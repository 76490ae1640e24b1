// The dialects: how a checkpoint's quantization_config says which module is stored in which scheme. One function each,
// in the file of its name, that turns the JSON into a CheckpointQuant.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "octet/base/json.h"
#include "octet/quant/module_pattern.h"
#include "octet/quant/scheme.h"

namespace octet {

// How one linear is stored on disk and held in memory. `on_disk == in_memory` unless it is quantised while loading.
struct LinearScheme {
  const QuantScheme* on_disk = nullptr;
  const QuantScheme* in_memory = nullptr;
  QuantFormat activation;  // what the linear wants as input; not quantized() for W8A16

  // The same, not quantized() for a plain weight.
  QuantFormat activation_format() const;
};

// What the checkpoint says about its KV cache.
struct KvCacheQuant {
  DType dtype = DType::kF8E4M3;
  bool per_head = false;  // one scale per head, not one per layer
  // Whether the cache is 8-bit unless the user says otherwise. AutoFP8 and Quark files only say which scales there are.
  bool by_default = false;
};

// Modules that are stored alike.
struct QuantGroup {
  std::vector<ModulePattern> modules;
  bool every_linear = false;  // all linears that no other group names
  LinearScheme scheme;
};

struct CheckpointQuant {
  std::string dialect;  // "AutoFP8", for reports
  std::vector<QuantGroup> groups;
  std::vector<ModulePattern> ignore;
  std::optional<KvCacheQuant> kv_cache;
  std::vector<std::shared_ptr<const QuantScheme>> own_schemes = {};  // of this file's tiles

  const QuantGroup* group_of(std::string_view module) const;  // nullptr: plain
};

// Finds the dialect and reads it. Throws Error{kUnsupported} naming the quant_method or field that octet does not know,
// Error{kModel} for a value of a wrong type.
CheckpointQuant read_dialect(const Json& quantization_config);

CheckpointQuant read_autofp8(const JsonObject& config);
CheckpointQuant read_block_fp8(const JsonObject& config);
CheckpointQuant read_compressed_tensors(const JsonObject& config);
CheckpointQuant read_fbgemm_fp8(const JsonObject& config);
CheckpointQuant read_modelopt(const JsonObject& config);
CheckpointQuant read_quark(const JsonObject& config);

// Linears that octet stores alike.
struct WrittenGroup {
  const QuantScheme* scheme = nullptr;
  QuantFormat activation;            // as LinearScheme's
  std::vector<std::string> modules;  // by their full names; empty: every linear that is not ignored
};

// What a checkpoint that octet writes says of itself: one group for all linears but those of `ignore`, or several that
// name theirs.
struct WrittenQuant {
  std::vector<WrittenGroup> groups;
  std::vector<std::string> ignore;  // linears that are not quantised, by their full names
  std::optional<KvCacheQuant> kv_cache;
};

// A dialect that octet writes. Its functions stand beside its reader.
struct DialectWriter {
  std::string_view name;  // "autofp8": what users choose by
  // Why it cannot say this; empty when it can.
  std::string (*declines)(const WrittenQuant& quant);
  Json (*quantization_config)(const WrittenQuant& quant);
  // What a linear's scales are called and shaped on disk.
  std::string_view weight_scale;  // "weight_scale", "weight_scale_inv"
  Shape (*scale_shape)(const QuantFormat& format, int64_t n, int64_t k);
  Shape scalar;  // of input_scale, and of k_scale and v_scale for a whole layer
};
const DialectWriter& autofp8_writer();             // one scale per tensor
const DialectWriter& block_fp8_writer();           // the same quant_method, in blocks
const DialectWriter& compressed_tensors_writer();  // everything

// The writer called `name` ("autofp8", "compressed-tensors"; empty: the one that most engines read for this) for
// `quant`. Throws Error{kUsage} for an unknown name and for what the dialect cannot say.
const DialectWriter& find_writer(std::string_view name, const WrittenQuant& quant);

// What dialects share.
inline constexpr int64_t kMaxTileSide = int64_t{1} << 20;
std::vector<ModulePattern> read_modules(const JsonObject& config, std::string_view key,
                                        ModulePattern::Dialect dialect = ModulePattern::Dialect::kSearch);
// Keys that are in neither list are named in one warning.
void warn_of_unknown_keys(const JsonObject& config, std::span<const std::string_view> known);
[[noreturn]] void unsupported(const JsonObject& config, std::string_view key, std::string_view supported);
// The scheme of a granularity of blocks or groups; the same for the same format.
const QuantScheme& tile_scheme(CheckpointQuant& quant, const QuantFormat& format);
// How many channels of a token share a dynamic scale, by the key that says it: what octet quantises by.
int32_t read_input_group(const JsonObject& config, std::string_view key, int64_t found);
QuantGroup every_linear(const QuantScheme& scheme, const QuantFormat& activation);

}  // namespace octet
