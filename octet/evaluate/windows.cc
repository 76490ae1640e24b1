#include "octet/evaluate/windows.h"

#include <algorithm>

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

std::vector<ScoredWindow> slide_windows(std::span<const int32_t> token_ids, int64_t length, int64_t stride,
                                        int64_t max_windows) {
  if (length < 2) fail(ErrorCode::kUsage, "a window needs at least 2 tokens, {} were asked for", length);
  if (stride < 1 || stride > length)
    fail(ErrorCode::kUsage, "a stride of {}: expected 1 to the window's {} tokens", stride, length);
  if (token_ids.size() < 2)
    fail(ErrorCode::kInvalid, "the text has {} tokens; at least 2 are needed", token_ids.size());
  std::vector<ScoredWindow> windows;
  const auto size = static_cast<int64_t>(token_ids.size());
  for (int64_t begin = 0, scored = 1; scored < size; begin += stride) {
    if (max_windows > 0 && static_cast<int64_t>(windows.size()) == max_windows) break;
    const int64_t end = std::min(begin + length, size);
    const auto window = token_ids.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
    const auto first = static_cast<size_t>(std::max<int64_t>(1, scored - begin));
    windows.push_back({.token_ids = {window.begin(), window.end()}, .first_scored = first});
    scored = end;
  }
  return windows;
}

}  // namespace octet
