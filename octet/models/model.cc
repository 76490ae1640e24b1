#include "octet/models/model.h"

#include <algorithm>
#include <charconv>

#include "octet/base/error.h"

namespace octet {

Stage::Stage(const LayerRange& range, const ModelConfig& config)
    : begin(range.begin), end(std::min(range.end, config.num_hidden_layers)), num_layers(config.num_hidden_layers) {
  if (begin < 0 || begin >= end) {
    fail(ErrorCode::kUsage, "{}: layers {} to {} were asked for, of {}", config.path, range.begin, range.end,
         num_layers);
  }
}

bool Stage::may_have(std::string_view tensor, std::string_view layers) const {
  if (!tensor.starts_with(layers) || tensor.substr(layers.size(), 1) != ".") return true;
  const std::string_view rest = tensor.substr(layers.size() + 1);
  int64_t layer = 0;
  const auto [after, error] = std::from_chars(rest.data(), rest.data() + rest.size(), layer);
  if (error != std::errc()) return true;
  // What lies beyond the model's last layer is left over wherever it is looked at.
  return layer >= num_layers || (layer >= begin && layer < end);
}

const ModelArch& find_arch(const ModelConfig& config) {
  std::string supported;
  for (const ModelArch* arch : model_archs()) {
    for (const std::string_view name : arch->architectures) {
      if (name == config.architecture) return *arch;
      supported += (supported.empty() ? "" : ", ") + std::string(name);
    }
  }
  fail(ErrorCode::kUnsupported, "{}: architecture \"{}\" is not supported; supported: {}", config.path,
       config.architecture, supported);
}

}  // namespace octet
