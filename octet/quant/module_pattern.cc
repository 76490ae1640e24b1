#include "octet/quant/module_pattern.h"

#include <algorithm>

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

// The expression of a name with wildcards. A set in brackets begins with ! where expressions have ^.
std::string expression_of(std::string_view entry) {
  std::string expression = "^";
  bool in_brackets = false;
  for (size_t i = 0; i < entry.size(); ++i) {
    const char c = entry[i];
    if (in_brackets) {
      expression += c == '!' && entry[i - 1] == '[' ? '^' : c;
      in_brackets = c != ']';
    } else if (c == '*') {
      expression += ".*";
    } else if (c == '?') {
      expression += '.';
    } else if (c == '[') {
      expression += c;
      in_brackets = true;
    } else {
      if (std::string_view("\\.+(){}|^$").find(c) != std::string_view::npos) expression += '\\';
      expression += c;
    }
  }
  // "path.*" names the module at the path too.
  if (expression.ends_with("\\..*")) expression = expression.substr(0, expression.size() - 4) + "(\\..*)?";
  return expression + "$";
}

// Whether the parts between the dots of `name` stand in a row in `module`.
bool contains_path(std::string_view module, std::string_view name) {
  const std::string padded = "." + std::string(module) + ".";
  return padded.find("." + std::string(name) + ".") != std::string::npos;
}

}  // namespace

ModulePattern::ModulePattern(std::string_view entry, Dialect dialect) : text_(entry), dialect_(dialect) {
  if (entry.empty() || entry == "re:") fail(ErrorCode::kUnsupported, "ignore entry \"{}\": it names no module", entry);
  const bool wildcards = dialect == Dialect::kWildcard && entry.find_first_of("*?[") != std::string_view::npos;
  if (!wildcards && !entry.starts_with("re:")) {
    names_ = unfused(entry);
    return;
  }
  try {
    regex_.emplace(entry.starts_with("re:") ? std::string(entry.substr(3)) : expression_of(entry));
  } catch (const Error& error) {
    fail(error.code(), "ignore entry \"{}\": {}", entry, error.what());
  }
}

bool ModulePattern::matches(std::string_view module) const {
  if (regex_) return dialect_ == Dialect::kMatch ? regex_->matches_start(module) : regex_->found_in(module);
  return std::any_of(names_.begin(), names_.end(), [&](const std::string& name) {
    if (module == name || (module.ends_with(name) && module[module.size() - name.size() - 1] == '.')) return true;
    return dialect_ == Dialect::kWildcard && contains_path(module, name);
  });
}

bool matches_any(const std::vector<ModulePattern>& patterns, std::string_view module) {
  return std::any_of(patterns.begin(), patterns.end(), [&](const ModulePattern& p) { return p.matches(module); });
}

}  // namespace octet
