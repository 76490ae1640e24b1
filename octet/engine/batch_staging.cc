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

// Entries of block tables that one step may change by the kernel; with more, all rows are copied.
int64_t max_changes(const BatchLimits& limits) {
  constexpr int64_t kMostChanges = 1 << 16;
  return std::min(kMostChanges, limits.max_sequences * limits.max_blocks);
}

// Places and blocks of changes, rows and choices of pending tokens.
int64_t change_list_bytes(const BatchLimits& limits) {
  return 2 * (aligned(max_changes(limits) * kInt32) + aligned(limits.max_sequences * kInt32));
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
      lists_(device.kind == DeviceKind::kCpu ? Buffer() : make_host(device, change_list_bytes(limits))),
      copied_(device) {
  // Entries beyond a sequence's blocks are never read, but valid blocks all the same: 0, or a former sequence's.
  std::memset(host_table_.data(), 0, static_cast<size_t>(table_bytes(limits)));
  if (device_table_.data() == nullptr) return;
  used_blocks_ = limits.max_blocks;
  const StreamOwner stream(device);
  copy_table(limits.max_sequences, stream.get());
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
                                std::span<const RowDraw> draws, int64_t num_padding, const Backend& backend,
                                const PendingTokens& pending) {
  const auto num_chunks = static_cast<int64_t>(plan.chunks.size());
  const int64_t num_sequences = num_chunks + num_padding, num_tokens = plan.num_tokens + num_padding;
  OCTET_CHECK(num_sequences <= limits_.max_sequences && num_tokens <= limits_.max_tokens);
  copied_.wait();
  used_bytes_ = used_list_bytes_ = 0;
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
  const Stream stream = backend.launch().stream;
  const IntMove table_changes = fill_table(plan, stream);
  if (device_.data() != nullptr) {
    const Shape used{used_bytes_ / kInt32};
    MoveIntsOp op;
    op.moves[0].to = device_.tensor(DType::kI32, used);
    op.moves[0].from = host_.tensor(DType::kI32, used);
    op.moves[1] = table_changes;
    op.moves[2] = fill_pending(pending, token_ids.tensor);
    backend(op);
    copied_.record(stream);
  }
  const Buffer& table = device_table_.data() != nullptr ? device_table_ : host_table_;
  return {.batch = {.token_ids = token_ids.tensor,
                    .positions = positions.tensor,
                    .slot_mapping = slots.tensor,
                    .query_start = query_start.tensor,
                    .seq_lens = seq_lens.tensor,
                    .block_table = table.tensor(DType::kI32, Shape{num_sequences, limits_.max_blocks})},
          .logit_rows = rows.tensor,
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

// The host's table becomes the plan's; returns what brings the device's up to it.
IntMove BatchStaging::fill_table(const StepPlan& plan, Stream stream) {
  const bool on_gpu = device_table_.data() != nullptr;
  const int64_t room = on_gpu ? max_changes(limits_) : 0;
  const Tensor places = next_list(room), blocks = next_list(room);
  auto* const table = reinterpret_cast<int32_t*>(host_table_.data());
  int64_t num_changes = 0, row = 0;
  used_blocks_ = 0;
  for (const StepChunk& chunk : plan.chunks) {
    const auto of_chunk = plan.blocks_of(chunk);
    const auto count = static_cast<int64_t>(of_chunk.size());
    OCTET_CHECK(count <= limits_.max_blocks);
    for (int64_t b = 0; b < count; ++b) {
      int32_t& entry = table[row + b];
      if (entry == of_chunk[static_cast<size_t>(b)]) continue;
      entry = of_chunk[static_cast<size_t>(b)];
      if (num_changes < room) {
        places.data<int32_t>()[num_changes] = static_cast<int32_t>(row + b);
        blocks.data<int32_t>()[num_changes] = entry;
      }
      ++num_changes;
    }
    row += limits_.max_blocks;
    used_blocks_ = std::max(used_blocks_, count);
  }
  if (!on_gpu || num_changes == 0) return {};
  if (num_changes > room) {
    copy_table(static_cast<int64_t>(plan.chunks.size()), stream);
    return {};
  }
  return {.to = device_table_.tensor(DType::kI32, Shape{limits_.max_sequences * limits_.max_blocks}),
          .from = blocks.rows(0, num_changes),
          .to_index = places.rows(0, num_changes),
          .from_index = {}};
}

void BatchStaging::copy_table(int64_t num_sequences, Stream stream) {
  const Shape whole{limits_.max_sequences, limits_.max_blocks};
  const auto used = [&](const Buffer& table) {
    return table.tensor(DType::kI32, whole).rows(0, num_sequences).columns(0, used_blocks_);
  };
  octet::copy(used(device_table_), used(host_table_), stream);
}

IntMove BatchStaging::fill_pending(const PendingTokens& pending, const Tensor& token_ids) {
  const auto count = static_cast<int64_t>(pending.places.size());
  if (count == 0) return {};
  const Tensor rows = next_list(count), choices = next_list(count);
  for (int64_t i = 0; i < count; ++i) {
    rows.data<int32_t>()[i] = pending.places[static_cast<size_t>(i)].row;
    choices.data<int32_t>()[i] = pending.places[static_cast<size_t>(i)].choice;
  }
  return {.to = token_ids, .from = pending.choices, .to_index = rows, .from_index = choices};
}

Tensor BatchStaging::next_list(int64_t count) {
  const int64_t offset = used_list_bytes_;
  used_list_bytes_ = offset + aligned(count * kInt32);
  OCTET_CHECK(used_list_bytes_ <= lists_.num_bytes());
  return lists_.tensor(DType::kI32, Shape{count}, offset);
}

}  // namespace octet
