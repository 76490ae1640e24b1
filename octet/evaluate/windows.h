// A text as token windows: how every evaluation cuts its text.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace octet {

// Consecutive windows of `length` ids without overlap; a last shorter one is dropped unless it is the only one. At most
// `max_windows` of them (0: all).
std::vector<std::vector<int32_t>> cut_windows(std::span<const int32_t> token_ids, int64_t length, int64_t max_windows);

}  // namespace octet
