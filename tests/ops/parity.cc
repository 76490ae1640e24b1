#include "tests/ops/parity.h"

#include <algorithm>
#include <cstdlib>
#include <random>

namespace octet::ops_test {
namespace {

// Runs `op` in pieces of at most `piece` rows.
void run_in_pieces(const Kernel<MatmulOp>& kernel, const MatmulOp& op, int64_t piece, const Launch& launch) {
  const int64_t num_tokens = op.out.dim(0);
  for (int64_t begin = 0; begin < num_tokens; begin += piece) {
    const int64_t count = std::min(piece, num_tokens - begin);
    MatmulOp part = op;
    part.out = op.out.rows(begin, count);
    part.x.data = op.x.data.rows(begin, count);
    if (op.x.format.granularity == Granularity::kToken) part.x.scale = op.x.scale.rows(begin, count);
    if (kernel.declines(part, launch).empty()) {
      kernel.run(part, launch);
    } else {  // then another kernel takes small batches, and has to give these bits
      Backend(kernel_table(launch.stream.device), launch, DType::kF32)(part);
    }
  }
}

// Runs `op` sequence by sequence, each in chunks of at most `chunk` queries.
void run_in_chunks(const Kernel<PagedAttentionOp>& kernel, const PagedAttentionOp& op, CaseMemory& memory,
                   int64_t chunk, const Launch& launch) {
  const int32_t* starts = memory.on_host(op.query_start).data<int32_t>();
  const int32_t* seq_lens = memory.on_host(op.seq_lens).data<int32_t>();
  for (int64_t s = 0; s < op.num_sequences(); ++s) {
    const int64_t num_queries = starts[s + 1] - starts[s];
    for (int64_t begin = 0; begin < num_queries; begin += chunk) {
      const int64_t count = std::min(chunk, num_queries - begin);
      PagedAttentionOp part = op;
      part.q = op.q.rows(starts[s] + begin, count);
      part.out = op.out.rows(starts[s] + begin, count);
      if (op.quantized.data) {
        part.quantized.data = op.quantized.data.rows(starts[s] + begin, count);
        if (op.quantized.format.dynamic) part.quantized.scale = op.quantized.scale.rows(starts[s] + begin, count);
      }
      part.query_start = memory.integers(Shape{2}, {0, static_cast<int32_t>(count)});
      part.seq_lens = memory.integers(Shape{1}, {seq_lens[s] - static_cast<int32_t>(num_queries - begin - count)});
      part.block_table = op.block_table.rows(s, 1);
      part.check();
      kernel.run(part, launch);
    }
  }
}

}  // namespace

uint64_t base_seed() {
  static const uint64_t seed = [] {
    const char* text = std::getenv("OCTET_TEST_SEED");
    return text != nullptr ? std::strtoull(text, nullptr, 10) : uint64_t{std::random_device{}()};
  }();
  return seed;
}

void expect_batch_invariance(const MatmulOp& op, CaseMemory& memory, const Launch& launch) {
  for (const Kernel<MatmulOp>& kernel : kernel_table(launch.stream.device).of<MatmulOp>()) {
    if (!kernel.declines(op, launch).empty()) continue;
    SCOPED_TRACE(kernel.name);
    const CaseMemory::Snapshot together = run(kernel, op, memory, std::byte{0xff}, launch);
    for (const int64_t piece : {int64_t{1}, int64_t{3}, int64_t{16}}) {
      if (piece >= op.out.dim(0)) continue;
      memory.reset(std::byte{0xff});
      run_in_pieces(kernel, op, piece, launch);
      ASSERT_EQ(together, memory.outputs()) << "in pieces of " << piece;
    }
  }
}

void expect_batch_invariance(const PagedAttentionOp& op, CaseMemory& memory, const Launch& launch) {
  for (const Kernel<PagedAttentionOp>& kernel : kernel_table(launch.stream.device).of<PagedAttentionOp>()) {
    if (!kernel.declines(op, launch).empty()) continue;
    SCOPED_TRACE(kernel.name);
    const CaseMemory::Snapshot together = run(kernel, op, memory, std::byte{0xff}, launch);
    for (const int64_t chunk : {int64_t{1}, int64_t{7}, int64_t{1000}}) {
      memory.reset(std::byte{0xff});
      run_in_chunks(kernel, op, memory, chunk, launch);
      ASSERT_EQ(together, memory.outputs()) << "in chunks of " << chunk;
    }
  }
}

}  // namespace octet::ops_test
