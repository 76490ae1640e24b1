#include "octet/api/stop_strings.h"

#include <algorithm>
#include <utility>

namespace octet {

// The longest end of the pending text that is a beginning of a stop string.
size_t StopStrings::held_back_bytes() const {
  size_t held = 0;
  for (const std::string& stop : stops_) {
    for (size_t n = std::min(stop.size() - 1, pending_.size()); n > held; --n) {
      if (std::string_view(pending_).substr(pending_.size() - n) == std::string_view(stop).substr(0, n)) held = n;
    }
  }
  return held;
}

StopStrings::Result StopStrings::push(std::string_view text) {
  pending_ += text;
  size_t first = std::string::npos;
  const std::string* matched = nullptr;
  for (const std::string& stop : stops_) {
    const size_t at = pending_.find(stop);
    if (at < first) {
      first = at;
      matched = &stop;
    }
  }
  if (matched) {
    Result result{pending_.substr(0, first), *matched};
    pending_.clear();
    return result;
  }
  const size_t ready = pending_.size() - held_back_bytes();
  Result result{pending_.substr(0, ready), std::nullopt};
  pending_.erase(0, ready);
  return result;
}

std::string StopStrings::push_unchecked(std::string_view text) {
  std::string all = finish();
  all += text;
  return all;
}

std::string StopStrings::finish() { return std::exchange(pending_, std::string()); }

}  // namespace octet
