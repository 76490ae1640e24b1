#include "octet/models/model.h"

#include <algorithm>

#include "octet/base/error.h"

namespace octet {

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
