#include "octet/evaluate/windows.h"

#include "octet/base/error.h"

namespace octet {

std::vector<std::vector<int32_t>> cut_windows(std::span<const int32_t> token_ids, int64_t length, int64_t max_windows) {
  if (length < 2) fail(ErrorCode::kUsage, "a window needs at least 2 tokens, {} were asked for", length);
  if (token_ids.size() < 2)
    fail(ErrorCode::kInvalid, "the text has {} tokens; at least 2 are needed", token_ids.size());
  std::vector<std::vector<int32_t>> windows;
  const auto size = static_cast<int64_t>(token_ids.size());
  for (int64_t begin = 0; begin + length <= size; begin += length) {
    if (max_windows > 0 && static_cast<int64_t>(windows.size()) == max_windows) return windows;
    const auto window = token_ids.subspan(static_cast<size_t>(begin), static_cast<size_t>(length));
    windows.emplace_back(window.begin(), window.end());
  }
  if (windows.empty()) windows.emplace_back(token_ids.begin(), token_ids.end());
  return windows;
}

}  // namespace octet
