#include "octet/engine/kv_sizing.h"

#include <algorithm>

#include "octet/base/error.h"

namespace octet {
namespace {

constexpr int64_t kDefaultBytes = int64_t{4} << 30;

double gib(int64_t bytes) { return static_cast<double>(bytes) / static_cast<double>(int64_t{1} << 30); }

}  // namespace

int64_t num_kv_blocks(const KvBudget& budget) {
  const int64_t least = (budget.max_model_len + budget.block_size - 1) / budget.block_size;
  const int64_t most = least * budget.max_num_seqs;
  const int64_t ceiling = std::min(budget.requested_bytes.value_or(budget.available_bytes), budget.available_bytes);
  const int64_t fitting = ceiling / budget.bytes_per_block;
  if (budget.requested_bytes && *budget.requested_bytes > budget.available_bytes) {
    fail(ErrorCode::kMemory, "KV cache: {:.2f} GiB were asked for, {:.2f} GiB are available",
         gib(*budget.requested_bytes), gib(budget.available_bytes));
  }
  if (fitting < least) {
    fail(ErrorCode::kMemory,
         "KV cache: one sequence of max_model_len {} tokens needs {:.2f} GiB, {:.2f} GiB are {}; the largest "
         "max_model_len that "
         "would fit is {}",
         budget.max_model_len, gib(least * budget.bytes_per_block), gib(ceiling),
         budget.requested_bytes ? "granted" : "available", fitting * budget.block_size);
  }
  if (budget.requested_bytes || budget.unasked == KvBudget::Unasked::kAll) return std::min(most, fitting);
  const int64_t usual = std::min(kDefaultBytes, budget.available_bytes / 4) / budget.bytes_per_block;
  return std::min(most, std::max(least, usual));
}

}  // namespace octet
