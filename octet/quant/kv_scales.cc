#include "octet/quant/kv_scales.h"

#include <algorithm>
#include <array>
#include <charconv>

namespace octet {
namespace {

constexpr std::array<std::string_view, 4> kAttention = {"self_attn.", "attn.", "attention.", "mixer."};
// What follows, with x for k, v or q.
constexpr std::array<std::string_view, 8> kOfOne = {
    "x_scale",              // AutoFP8, compressed-tensors
    "x_proj.x_scale",       // ModelOpt
    "qkv_proj.x_scale",     // ModelOpt, of a fused projection
    "qkqkv_proj.x_scale",   // a slip of ModelOpt's that is in published files
    "x_proj.output_scale",  // Quark, older compressed-tensors
    "x_cache.scale",        // and "x.scale"
    "x.scale",
    "x_fake_quantizer.qscale_act"};  // Mistral
constexpr std::array<std::string_view, 2> kOfBoth = {"kv_scale", "kv_fake_quantizer.qscale_act"};
constexpr std::array<std::string_view, 6> kOfNone = {
    "prob_scale",    "prob_output_scale",        "x_zero_point",
    "kv_zero_point", "x_proj.output_zero_point", "x_proj.x_zero_point"};

// Whether `text` is `spelling` with every x that stands for a letter replaced by `letter`.
bool is_spelled(std::string_view text, std::string_view spelling, char letter) {
  if (text.size() != spelling.size()) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != (spelling[i] == 'x' ? letter : spelling[i])) return false;
  }
  return true;
}

std::optional<KvScaleName::Role> role_of(std::string_view text) {
  using Role = KvScaleName::Role;
  const auto any = [text](const auto& spellings, char letter) {
    return std::any_of(spellings.begin(), spellings.end(),
                       [&](std::string_view spelling) { return is_spelled(text, spelling, letter); });
  };
  if (any(kOfBoth, 'x')) return Role::kKeyAndValue;
  if (any(kOfOne, 'k')) return Role::kKey;
  if (any(kOfOne, 'v')) return Role::kValue;
  if (any(kOfOne, 'q') || any(kOfNone, 'k') || any(kOfNone, 'v') || any(kOfNone, 'q')) return Role::kNotUsed;
  return std::nullopt;
}

}  // namespace

std::optional<KvScaleName> parse_kv_scale(std::string_view tensor) {
  constexpr std::string_view kLayers = "layers.";
  const size_t at = tensor.find(kLayers);
  if (at == std::string_view::npos || (at > 0 && tensor[at - 1] != '.')) return std::nullopt;
  std::string_view rest = tensor.substr(at + kLayers.size());
  KvScaleName name;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), name.layer);
  if (error != std::errc() || name.layer < 0 || end == rest.data() + rest.size() || *end != '.') return std::nullopt;
  rest.remove_prefix(static_cast<size_t>(end - rest.data()) + 1);
  const auto* module = std::find_if(kAttention.begin(), kAttention.end(), [&](auto m) { return rest.starts_with(m); });
  if (module == kAttention.end()) return std::nullopt;
  const auto role = role_of(rest.substr(module->size()));
  if (!role) return std::nullopt;
  name.role = *role;
  return name;
}

}  // namespace octet
