#include "octet/quant/module_pattern.h"

#include "octet/base/error.h"

namespace octet {
namespace {

struct FusedProjection {
  std::string_view name;
  std::vector<std::string_view> parts;
};

std::vector<std::string> unfused(std::string_view entry) {
  const FusedProjection fused[] = {{"qkv_proj", {"q_proj", "k_proj", "v_proj"}},
                                   {"gate_up_proj", {"gate_proj", "up_proj"}}};
  for (const FusedProjection& projection : fused) {
    if (entry != projection.name && !entry.ends_with("." + std::string(projection.name))) continue;
    const std::string parent(entry.substr(0, entry.size() - projection.name.size()));
    std::vector<std::string> names = {std::string(entry)};
    for (const std::string_view part : projection.parts) names.push_back(parent + std::string(part));
    return names;
  }
  return {std::string(entry)};
}

}  // namespace

ModulePattern::ModulePattern(std::string_view entry) : text_(entry) {
  if (entry.empty() || entry == "re:") fail(ErrorCode::kUnsupported, "ignore entry \"{}\": it names no module", entry);
  if (entry.starts_with("re:")) {
    parse_expression(entry.substr(3));
  } else {
    names_ = unfused(entry);
  }
}

void ModulePattern::parse_expression(std::string_view expression) {
  const bool from_start = expression.starts_with('^');
  if (from_start) expression.remove_prefix(1);
  const bool to_end = expression.ends_with('$') && !expression.ends_with("\\$");
  if (to_end) expression.remove_suffix(1);
  if (!from_start) pieces_.push_back({Token::kAnyRun});
  for (size_t i = 0; i < expression.size(); ++i) {
    const char c = expression[i];
    if (c == '.' && i + 1 < expression.size() && expression[i + 1] == '*') {
      pieces_.push_back({Token::kAnyRun});
      ++i;
    } else if (c == '.') {
      pieces_.push_back({Token::kAnyCharacter});
    } else if (c == '\\' && i + 1 < expression.size() &&
               std::string_view(".-_\\$^*+?()[]{}|").find(expression[i + 1]) != std::string_view::npos) {
      pieces_.push_back({Token::kLiteral, expression[++i]});
    } else if (std::string_view("\\*+?()[]{}|^$").find(c) != std::string_view::npos) {
      fail(ErrorCode::kUnsupported,
           "ignore entry \"{}\": '{}' of regular expressions is not supported; octet knows plain module names and, "
           "after "
           "\"re:\", literal characters, '.', '.*', '^' at the start and '$' at the end",
           text_, c);
    } else {
      pieces_.push_back({Token::kLiteral, c});
    }
  }
  if (!to_end) pieces_.push_back({Token::kAnyRun});
}

bool ModulePattern::matches(std::string_view module) const {
  if (names_.empty()) return expression_matches(module);
  for (const std::string& name : names_) {
    if (module == name) return true;
    if (module.size() > name.size() && module.ends_with(name) && module[module.size() - name.size() - 1] == '.')
      return true;
  }
  return false;
}

// The classic match with one remembered run: when a later piece fails, the last run takes one more character.
bool ModulePattern::expression_matches(std::string_view name) const {
  constexpr size_t kNone = static_cast<size_t>(-1);
  size_t piece = 0;
  size_t at = 0;
  size_t run_piece = kNone;
  size_t run_at = 0;
  while (at < name.size()) {
    if (piece < pieces_.size() && pieces_[piece].token == Token::kAnyRun) {
      run_piece = piece++;
      run_at = at;
    } else if (piece < pieces_.size() &&
               (pieces_[piece].token == Token::kAnyCharacter || pieces_[piece].literal == name[at])) {
      ++piece;
      ++at;
    } else if (run_piece != kNone) {
      piece = run_piece + 1;
      at = ++run_at;
    } else {
      return false;
    }
  }
  while (piece < pieces_.size() && pieces_[piece].token == Token::kAnyRun) ++piece;
  return piece == pieces_.size();
}

}  // namespace octet
