// ModulePattern: which modules an entry of a list names. Dialects read the same entries differently:
//   "lm_head", "mlp.gate", "model.layers.0.mlp.down_proj"   that module, or every module whose name ends in ".<entry>"
//   "...qkv_proj", "...gate_up_proj"                         names of fused projections stand for their parts
//   "re:.*lm_head", "re:.*self_attn.(q|k|v)_proj$"           a regular expression (module_regex.h)
//   "lm_head*", "*.mlp.gate"                                 with wildcards, in the lists of ModelOpt and Quark
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "octet/quant/module_regex.h"

namespace octet {

class ModulePattern {
 public:
  enum class Dialect : uint8_t {
    kSearch,    // AutoFP8, and the user's own: an expression may be found anywhere in the name
    kMatch,     // compressed-tensors: it is found at the name's beginning
    kWildcard,  // ModelOpt, Quark: * ? [ ] as in file names; a plain entry also names all modules below it
  };
  // Throws Error{kUnsupported} naming the entry and what in it is not known.
  explicit ModulePattern(std::string_view entry, Dialect dialect = Dialect::kSearch);
  bool matches(std::string_view module) const;
  const std::string& text() const { return text_; }

 private:
  std::string text_;
  Dialect dialect_;
  std::vector<std::string> names_;    // of a plain entry: itself, or the parts of a fused projection
  std::optional<ModuleRegex> regex_;  // of any other
};

bool matches_any(const std::vector<ModulePattern>& patterns, std::string_view module);

}  // namespace octet
