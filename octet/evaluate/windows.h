// A text as token windows: how every evaluation cuts its text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace octet {

// Consecutive windows of `length` ids without overlap; a last shorter one is dropped unless it is the only one. At most
// `max_windows` of them (0: all).
std::vector<std::vector<int32_t>> cut_windows(std::span<const int32_t> token_ids, int64_t length, int64_t max_windows);

// A window of which only the tokens from `first_scored` on are scored; those before are context.
struct ScoredWindow {
  std::vector<int32_t> token_ids;
  size_t first_scored = 1;
};
// Windows of `length` ids, each `stride` after the one before, that score every id that has others before it in its
// window, once: Hugging Face's evaluation with a sliding window. The last one may be shorter. stride <= length; at most
// max_windows (0: all).
std::vector<ScoredWindow> slide_windows(std::span<const int32_t> token_ids, int64_t length, int64_t stride,
                                        int64_t max_windows);

}  // namespace octet
