// ModulePattern: which modules an `ignore` entry names. Patterns come with checkpoints from anywhere, so there is no
// regular expression engine behind them: matching takes at most pattern x name steps.
//   "lm_head", "mlp.gate", "model.layers.0.mlp.down_proj"   that module, or every module whose name ends in ".<entry>"
//   "...qkv_proj", "...gate_up_proj"                         names of fused projections stand for their parts
//   "re:.*lm_head", "re:model\.layers\.0\..*", "re:gate$"    found anywhere in the name unless anchored with ^ and $,
//   as
//                                                            AutoFP8 does; of regular expressions only . .* \c ^ $ are
//                                                            known
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace octet {

class ModulePattern {
 public:
  // Throws Error{kUnsupported} naming the entry and what in it is not known.
  explicit ModulePattern(std::string_view entry);
  bool matches(std::string_view module) const;
  const std::string& text() const { return text_; }

 private:
  enum class Token : char { kLiteral, kAnyCharacter, kAnyRun };
  struct Piece {
    Token token;
    char literal = 0;
  };
  void parse_expression(std::string_view expression);
  bool expression_matches(std::string_view name) const;

  std::string text_;
  std::vector<std::string> names_;  // of a plain entry: itself, or the parts of a fused projection
  std::vector<Piece> pieces_;       // of a "re:" entry: to match the whole name
};

}  // namespace octet
