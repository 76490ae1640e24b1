// The parts of a runner that serve GPUs, as far as the CPU shows them: which batch sizes are recorded, and what a
// padded batch looks like.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "octet/base/error.h"
#include "octet/engine/batch_staging.h"
#include "octet/engine/decode_graphs.h"
#include "octet/kernels/backends.h"

namespace octet {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;

std::vector<int32_t> values(ConstTensor tensor) {
  const auto* data = tensor.data<int32_t>();
  return {data, data + tensor.num_elements()};
}

TEST(DecodeGraphs, BatchSizes) {
  EXPECT_THAT(DecodeGraphs::batch_sizes(1), ElementsAre(1));
  EXPECT_THAT(DecodeGraphs::batch_sizes(6), ElementsAre(1, 2, 4, 6));
  EXPECT_THAT(DecodeGraphs::batch_sizes(24), ElementsAre(1, 2, 4, 8, 16, 24));
  const std::vector<int64_t> many = DecodeGraphs::batch_sizes(300);
  EXPECT_THAT(std::vector(many.begin() + 3, many.end()),
              ElementsAre(8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 120, 128, 192, 256, 300));
}

TEST(DecodeGraphs, NothingIsFoundWhereNothingIsRecorded) {
  const DecodeGraphs graphs;
  EXPECT_EQ(graphs.find(1), nullptr);
  EXPECT_EQ(graphs.largest(), 0);
}

// Two sequences: tokens 3..5 of the first, token 0 of the second.
StepPlan plan() {
  StepPlan plan;
  plan.token_ids = {11, 12, 13, 14};
  plan.block_ids = {7, 2, 5};
  plan.chunks = {StepChunk{.begin = 3, .num_tokens = 3, .first_token = 0, .first_block = 0, .num_blocks = 2},
                 StepChunk{.begin = 0, .num_tokens = 1, .first_token = 3, .first_block = 2, .num_blocks = 1}};
  plan.num_tokens = 4;
  return plan;
}

Backend cpu() { return Backend(kernel_table(Device{}), Launch{}, DType::kF32); }

constexpr BatchLimits kLimits{.max_tokens = 8, .max_sequences = 4, .max_blocks = 3, .block_size = 4};

TEST(BatchStaging, StagesThePlanThenPadding) {
  BatchStaging staging(Device{}, kLimits);
  const std::vector<int32_t> rows = {2, 3};
  const std::vector<RowDraw> draws = {{.top_k = 7}, {.top_k = 9}};
  const StagedBatch staged = staging.stage(plan(), rows, draws, 2, cpu());
  const Batch& batch = staged.batch;
  EXPECT_THAT(values(batch.token_ids), ElementsAre(11, 12, 13, 14, 0, 0));
  EXPECT_THAT(values(batch.positions), ElementsAre(3, 4, 5, 0, 0, 0));
  EXPECT_THAT(values(batch.slot_mapping), ElementsAre(7 * 4 + 3, 2 * 4, 2 * 4 + 1, 5 * 4, -1, -1));
  EXPECT_THAT(values(batch.query_start), ElementsAre(0, 3, 4, 5, 6));
  EXPECT_THAT(values(batch.seq_lens), ElementsAre(6, 1, 1, 1));
  EXPECT_THAT(values(batch.block_table), ElementsAre(7, 2, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0));
  EXPECT_THAT(values(staged.logit_rows), ElementsAreArray(rows));
  ASSERT_EQ(staged.draws.shape, (Shape{4, kRowDrawWords}));
  const auto* staged_draws = reinterpret_cast<const RowDraw*>(staged.draws.bytes);
  EXPECT_EQ(staged_draws[1].top_k, 9);
  EXPECT_EQ(staged_draws[3].inverse_temperature, 0.0f);
}

TEST(BatchStaging, ASizeHasItsAddresses) {
  BatchStaging staging(Device{}, kLimits);
  const Batch padding = staging.stage({}, {}, {}, 3, cpu()).batch;
  StepPlan decode;
  decode.token_ids = {21, 22};
  decode.block_ids = {1, 6};
  decode.chunks = {StepChunk{.begin = 0, .num_tokens = 1, .first_token = 0, .first_block = 0, .num_blocks = 1},
                   StepChunk{.begin = 2, .num_tokens = 1, .first_token = 1, .first_block = 1, .num_blocks = 1}};
  decode.num_tokens = 2;
  const Batch batch = staging.stage(decode, {}, {}, 1, cpu()).batch;
  const auto same = [](ConstTensor a, ConstTensor b) { return a.bytes == b.bytes && a.shape == b.shape; };
  EXPECT_TRUE(same(batch.token_ids, padding.token_ids));
  EXPECT_TRUE(same(batch.positions, padding.positions));
  EXPECT_TRUE(same(batch.slot_mapping, padding.slot_mapping));
  EXPECT_TRUE(same(batch.query_start, padding.query_start));
  EXPECT_TRUE(same(batch.seq_lens, padding.seq_lens));
  EXPECT_TRUE(same(batch.block_table, padding.block_table));
  EXPECT_THAT(values(batch.seq_lens), ElementsAre(1, 3, 1));
}

TEST(BatchStaging, TakesNoMoreThanItsLimits) {
  BatchStaging staging(Device{}, kLimits);
  EXPECT_THROW(staging.stage({}, {}, {}, 5, cpu()), Error);
  StepPlan wide = plan();
  wide.block_ids = {1, 2, 3, 4, 5};
  wide.chunks[0].num_blocks = 4;
  wide.chunks[1].first_block = 4;
  EXPECT_THROW(staging.stage(wide, {}, {}, 0, cpu()), Error);
}

}  // namespace
}  // namespace octet
