// The names that checkpoints give to the scales of their KV cache.
#pragma once

#include <string_view>

namespace octet {

// "...self_attn.k_scale", "...k_proj.k_scale", "...v_proj.output_scale", "...self_attn.kv_scale", their zero points,
// ...
bool is_kv_scale(std::string_view tensor);

}  // namespace octet
