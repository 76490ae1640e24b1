#include "octet/ops/op.h"

#include "octet/base/error.h"
#include "octet/device/stream.h"

namespace octet {

std::byte* ThreadScratch::get(int thread, int64_t num_bytes) {
  Buffer& buffer = buffers_[static_cast<size_t>(thread)];
  if (buffer.num_bytes() < num_bytes) buffer = Buffer(Device{}, num_bytes, "kernel scratch");
  return buffer.data();
}

Workspace make_workspace(const Buffer& buffer, Stream stream) {
  constexpr int64_t kCounterBytes = Workspace::kNumCounters * int64_t{sizeof(int32_t)};
  if (buffer.num_bytes() == 0) return {};
  const int64_t num_bytes = (buffer.num_bytes() - kCounterBytes) / 256 * 256;
  OCTET_CHECK(num_bytes >= 0);
  fill_bytes(buffer.data() + num_bytes, std::byte{0}, kCounterBytes, stream);
  return {
      .data = buffer.data(), .num_bytes = num_bytes, .counters = reinterpret_cast<int32_t*>(buffer.data() + num_bytes)};
}

void no_kernel(std::string_view op_name, const std::vector<std::pair<std::string_view, std::string>>& reasons) {
  std::string text = fmt::format("no kernel can run {}:", op_name);
  for (const auto& [name, reason] : reasons) text += fmt::format("\n  {}: {}", name, reason);
  fail(ErrorCode::kUnsupported, "{}", text);
}

}  // namespace octet
