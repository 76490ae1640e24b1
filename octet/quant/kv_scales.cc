#include "octet/quant/kv_scales.h"

#include "octet/quant/module_regex.h"

namespace octet {

bool is_kv_scale(std::string_view tensor) {
  static const ModuleRegex kNames(
      R"(\.(self_attn|attn|mixer)\.(([qkv]|qkv|qkqkv)_proj\.)?([qkv]_scale|kv_scale|output_scale|prob_output_scale|[qkv]_zero_point|output_zero_point)$)");
  return kNames.found_in(tensor);
}

}  // namespace octet
