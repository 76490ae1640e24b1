#include "octet/engine/batch_staging.h"

#include <algorithm>
#include <cstring>

#include "octet/base/error.h"

namespace octet {
namespace {

constexpr int64_t kInt32 = 4;
constexpr int64_t kAlignment = 64;
constexpr int64_t kNumParts = 7;

int64_t aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// Token ids, positions, slots, rows and draws per token, lengths and starts per sequence.
int64_t list_bytes(const BatchLimits& limits) {
  return ((4 + kRowDrawWords) * limits.max_tokens + 2 * limits.max_sequences + 1) * kInt32 + kNumParts * kAlignment;
}

int64_t table_bytes(const BatchLimits& limits) { return limits.max_sequences * limits.max_blocks * kInt32; }

Buffer make_host(Device device, int64_t num_bytes) {
  constexpr const char* kPurpose = "batch";
  return device.kind == DeviceKind::kCpu ? Buffer(device, num_bytes, kPurpose)
                                         : Buffer::pinned(device, num_bytes, kPurpose);
}

Buffer make_device(Device device, int64_t num_bytes) {
  return device.kind == DeviceKind::kCpu ? Buffer() : Buffer(device, num_bytes, "batch");
}

}  // namespace

int64_t BatchStaging::num_bytes(const BatchLimits& limits) { return list_bytes(limits) + table_bytes(limits); }

BatchStaging::BatchStaging(Device device, const BatchLimits& limits)
    : limits_(limits),
      host_(make_host(device, list_bytes(limits))),
      device_(make_device(device, list_bytes(limits))),
      host_table_(make_host(device, table_bytes(limits))),
      device_table_(make_device(device, table_bytes(limits))),
      copied_(device) {
  // Entries beyond a sequence's blocks are never read, but valid blocks all the same: 0, or a former sequence's.
  std::memset(host_table_.data(), 0, static_cast<size_t>(table_bytes(limits)));
  used_blocks_ = limits.max_blocks;
  const StreamOwner stream(device);
  copy_to_device(limits.max_sequences, stream.get());
  synchronize(stream.get());
}

BatchStaging::Part BatchStaging::next_part(int64_t count) {
  const int64_t offset = used_bytes_;
  used_bytes_ = offset + aligned(count * kInt32);
  OCTET_CHECK(used_bytes_ <= host_.num_bytes());
  const Buffer& memory = device_.data() != nullptr ? device_ : host_;
  return {.host = reinterpret_cast<int32_t*>(host_.data() + offset),
          .tensor = memory.tensor(DType::kI32, Shape{count}, offset)};
}

StagedBatch BatchStaging::stage(const StepPlan& plan, std::span<const int32_t> logit_rows,
                                std::span<const RowDraw> draws, int64_t num_padding, Stream stream) {
  const auto num_chunks = static_cast<int64_t>(plan.chunks.size());
  const int64_t num_sequences = num_chunks + num_padding, num_tokens = plan.num_tokens + num_padding;
  OCTET_CHECK(num_sequences <= limits_.max_sequences && num_tokens <= limits_.max_tokens);
  copied_.wait();
  used_bytes_ = 0;
  const Part token_ids = next_part(num_tokens), positions = next_part(num_tokens), slots = next_part(num_tokens);
  const Part query_start = next_part(num_sequences + 1), seq_lens = next_part(num_sequences);
  const Part rows = next_part(static_cast<int64_t>(logit_rows.size()));
  const int64_t num_draws = static_cast<int64_t>(draws.size()) + num_padding;
  const Part row_draws = next_part(num_draws * kRowDrawWords);
  int64_t row = 0;
  for (int64_t s = 0; s < num_chunks; ++s) {
    const StepChunk& chunk = plan.chunks[static_cast<size_t>(s)];
    query_start.host[s] = static_cast<int32_t>(row);
    seq_lens.host[s] = static_cast<int32_t>(chunk.end());
    row = fill_chunk(plan, chunk, row, token_ids, positions, slots);
  }
  OCTET_CHECK(row == plan.num_tokens);
  for (int64_t s = num_chunks; s < num_sequences; ++s, ++row) {
    query_start.host[s] = static_cast<int32_t>(row);
    seq_lens.host[s] = 1;
    token_ids.host[row] = 0;
    positions.host[row] = 0;
    slots.host[row] = -1;
  }
  query_start.host[num_sequences] = static_cast<int32_t>(row);
  std::copy(logit_rows.begin(), logit_rows.end(), rows.host);
  auto* next_draw = reinterpret_cast<RowDraw*>(row_draws.host);
  std::fill_n(std::copy(draws.begin(), draws.end(), next_draw), num_padding, RowDraw());
  fill_table(plan);
  copy_to_device(num_chunks, stream);
  const Buffer& table = device_table_.data() != nullptr ? device_table_ : host_table_;
  return {.batch = {.token_ids = token_ids.tensor,
                    .positions = positions.tensor,
                    .slot_mapping = slots.tensor,
                    .query_start = query_start.tensor,
                    .seq_lens = seq_lens.tensor,
                    .block_table = table.tensor(DType::kI32, Shape{num_sequences, limits_.max_blocks})},
          .logit_rows = rows.tensor,
          .token_ids = token_ids.tensor,
          .draws = row_draws.tensor.reshape(Shape{num_draws, kRowDrawWords})};
}

// Returns the row after the chunk's.
int64_t BatchStaging::fill_chunk(const StepPlan& plan, const StepChunk& chunk, int64_t row, const Part& token_ids,
                                 const Part& positions, const Part& slots) const {
  const auto blocks = plan.blocks_of(chunk);
  int64_t position = chunk.begin;
  for (const int32_t token_id : plan.tokens_of(chunk)) {
    OCTET_CHECK(token_id >= 0 || token_id == kPendingToken);
    token_ids.host[row] = token_id;
    positions.host[row] = static_cast<int32_t>(position);
    const int64_t block = blocks[static_cast<size_t>(position / limits_.block_size)];
    slots.host[row] = static_cast<int32_t>(block * limits_.block_size + position % limits_.block_size);
    ++position;
    ++row;
  }
  return row;
}

void BatchStaging::fill_table(const StepPlan& plan) {
  auto* row = reinterpret_cast<int32_t*>(host_table_.data());
  used_blocks_ = 0;
  for (const StepChunk& chunk : plan.chunks) {
    const auto blocks = plan.blocks_of(chunk);
    OCTET_CHECK(static_cast<int64_t>(blocks.size()) <= limits_.max_blocks);
    std::copy(blocks.begin(), blocks.end(), row);
    row += limits_.max_blocks;
    used_blocks_ = std::max(used_blocks_, static_cast<int64_t>(blocks.size()));
  }
}

void BatchStaging::copy_to_device(int64_t num_sequences, Stream stream) {
  if (device_.data() == nullptr) return;
  copy_bytes(device_.data(), host_.data(), used_bytes_, stream);
  if (num_sequences > 0 && used_blocks_ > 0) {
    const Shape whole{limits_.max_sequences, limits_.max_blocks};
    const auto used = [&](const Buffer& table) {
      return table.tensor(DType::kI32, whole).rows(0, num_sequences).columns(0, used_blocks_);
    };
    octet::copy(used(device_table_), used(host_table_), stream);
  }
  copied_.record(stream);
}

}  // namespace octet
