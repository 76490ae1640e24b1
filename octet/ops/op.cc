#include "octet/ops/op.h"

#include "octet/base/error.h"

namespace octet {

std::byte* ThreadScratch::get(int thread, int64_t num_bytes) {
  Buffer& buffer = buffers_[static_cast<size_t>(thread)];
  if (buffer.num_bytes() < num_bytes) buffer = Buffer(Device{}, num_bytes, "kernel scratch");
  return buffer.data();
}

void no_kernel(std::string_view op_name, const std::vector<std::pair<std::string_view, std::string>>& reasons) {
  std::string text = fmt::format("no kernel can run {}:", op_name);
  for (const auto& [name, reason] : reasons) text += fmt::format("\n  {}: {}", name, reason);
  fail(ErrorCode::kUnsupported, "{}", text);
}

}  // namespace octet
