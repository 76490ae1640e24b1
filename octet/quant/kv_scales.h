// The names that checkpoints give to the scales of their KV cache, as one mapping for all models.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace octet {

struct KvScaleName {
  enum class Role : uint8_t {
    kKey,
    kValue,
    kKeyAndValue,  // older files: one scale for both
    kNotUsed,      // of queries and of softmax weights, which octet does not quantise; zero points
  };
  int64_t layer = 0;
  Role role = Role::kNotUsed;
};

// "model.layers.3.self_attn.k_scale", "...k_proj.k_scale", "...v_proj.output_scale", "...self_attn.kv_scale", ...
// Nothing for any other tensor.
std::optional<KvScaleName> parse_kv_scale(std::string_view tensor);

}  // namespace octet
