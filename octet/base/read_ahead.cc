#include "octet/base/read_ahead.h"

#include <algorithm>

namespace octet {
namespace {

constexpr int64_t kLineBytes = 64;
constexpr int64_t kMostBytes = 96 << 10;        // a fifth of a small L2, which also holds what is multiplied with
constexpr int64_t kStepBytes = 4 * kLineBytes;  // between two looks at whether the wait is over

}  // namespace

void ReadAhead::end(const Matrix* matrix, int thread) {
  const Matrix* successor = matrix->successor.load(std::memory_order_acquire);
  if (successor == nullptr) return;
  const Share& share = successor->shares[static_cast<size_t>(thread)];
  slots_[static_cast<size_t>(thread)] = {.next = share.begin, .end = std::min(share.end, share.begin + kMostBytes)};
}

bool ReadAhead::step(int thread) {
  Slot& slot = slots_[static_cast<size_t>(thread)];
  if (slot.next >= slot.end) return false;
  for (int64_t i = 0; i < kStepBytes; i += kLineBytes) __builtin_prefetch(slot.next + i, 0, 2);
  slot.next += kStepBytes;
  return true;
}

}  // namespace octet
