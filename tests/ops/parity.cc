#include "tests/ops/parity.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <random>

namespace octet::ops_test {
namespace {

// The rows [begin, begin + count) of an op.
template <class Bytes>
BasicQuantTensor<Bytes> rows_of(BasicQuantTensor<Bytes> x, int64_t begin, int64_t count) {
  x.data = x.data.rows(begin, count);
  const Granularity g = x.format.granularity;
  if (g != Granularity::kToken && g != Granularity::kGroup) return x;
  x.scale = x.scale.rows(begin, count);
  if (x.format.zero_point) x.zero_point = x.zero_point.rows(begin, count);
  return x;
}
MatmulOp rows_of(MatmulOp op, int64_t begin, int64_t count) {
  op.out = op.out.rows(begin, count);
  op.x = rows_of(op.x, begin, count);
  return op;
}
RmsNormOp rows_of(RmsNormOp op, int64_t begin, int64_t count) {
  op.out = rows_of(op.out, begin, count);
  if (op.x) op.x = op.x.rows(begin, count);
  op.residual = op.residual.rows(begin, count);
  return op;
}
HeadMatmulOp rows_of(HeadMatmulOp op, int64_t begin, int64_t count) {
  op.out = op.out.rows(begin, count);
  op.x = op.x.rows(begin, count);
  return op;
}
SiluAndMulOp rows_of(SiluAndMulOp op, int64_t begin, int64_t count) {
  op.out = rows_of(op.out, begin, count);
  op.x = op.x.rows(begin, count);
  return op;
}
int64_t num_rows(const HeadMatmulOp& op) { return op.out.dim(0); }
int64_t num_rows(const MatmulOp& op) { return op.out.dim(0); }
int64_t num_rows(const RmsNormOp& op) { return op.out.data.dim(0); }
int64_t num_rows(const SiluAndMulOp& op) { return op.out.data.dim(0); }

// Runs `op` in pieces of at most `piece` rows.
template <class Op>
void run_in_pieces(const Kernel<Op>& kernel, const Op& op, int64_t piece, const Launch& launch,
                   KernelSelection selection) {
  for (int64_t begin = 0; begin < num_rows(op); begin += piece) {
    const Op part = rows_of(op, begin, std::min(piece, num_rows(op) - begin));
    if (kernel.declines(part, launch).empty()) {
      kernel.run(part, launch);
    } else {  // then another kernel takes small batches, and has to give these bits
      Backend(kernel_table(launch.stream.device, selection), launch, DType::kF32)(part);
    }
  }
}

// They cut the keys of sequences with few new tokens so that the batch's work is equal parts.
bool cuts_by_batch(std::string_view kernel) {
  return kernel == "hopper.attention_decode" || kernel == "hopper.attention_latent" ||
         kernel == "hopper.attention_prefill";
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
      if (op.quantized.data) part.quantized = rows_of(op.quantized, starts[s] + begin, count);
      part.query_start = memory.integers(Shape{2}, {0, static_cast<int32_t>(count)});
      part.seq_lens = memory.integers(Shape{1}, {seq_lens[s] - static_cast<int32_t>(num_queries - begin - count)});
      part.block_table = op.block_table.rows(s, 1);
      part.check();
      kernel.run(part, launch);
    }
  }
}

}  // namespace

RopeAttentionOp sequences_of(RopeAttentionOp op, int64_t begin, int64_t count, ConstTensor query_start) {
  RopeKvOp& rope = op.rope;
  PagedAttentionOp& attention = op.attention;
  for (ConstTensor* tensor : {&rope.qkv, &rope.cos, &rope.sin, &rope.slot_mapping, &attention.q, &attention.seq_lens,
                              &attention.block_table}) {
    *tensor = tensor->rows(begin, count);
  }
  rope.q_out = rope.q_out.rows(begin, count);
  attention.out = attention.out.rows(begin, count);
  if (attention.quantized.data) attention.quantized = rows_of(attention.quantized, begin, count);
  attention.query_start = query_start;
  return op;
}

uint64_t base_seed() {
  static const uint64_t seed = [] {
    const char* text = std::getenv("OCTET_TEST_SEED");
    return text != nullptr ? std::strtoull(text, nullptr, 10) : uint64_t{std::random_device{}()};
  }();
  return seed;
}

template <class Op>
void expect_batch_invariance(const Op& op, CaseMemory& memory, const Launch& launch, KernelSelection selection) {
  for (const Kernel<Op>& kernel : kernel_table(launch.stream.device, selection).template of<Op>()) {
    if (!kernel.declines(op, launch).empty()) continue;
    SCOPED_TRACE(kernel.name);
    const CaseMemory::Snapshot together = run(kernel, op, memory, std::byte{0xff}, launch);
    for (const int64_t piece : {int64_t{1}, int64_t{3}, int64_t{16}}) {
      if (piece >= num_rows(op)) continue;
      memory.reset(std::byte{0xff});
      run_in_pieces(kernel, op, piece, launch, selection);
      ASSERT_EQ(together, memory.outputs()) << "in pieces of " << piece;
    }
  }
}
template void expect_batch_invariance(const HeadMatmulOp&, CaseMemory&, const Launch&, KernelSelection);
template void expect_batch_invariance(const MatmulOp&, CaseMemory&, const Launch&, KernelSelection);
template void expect_batch_invariance(const RmsNormOp&, CaseMemory&, const Launch&, KernelSelection);
template void expect_batch_invariance(const SiluAndMulOp&, CaseMemory&, const Launch&, KernelSelection);

template <>
void expect_batch_invariance(const PagedAttentionOp& op, CaseMemory& memory, const Launch& launch,
                             KernelSelection selection) {
  for (const Kernel<PagedAttentionOp>& kernel : kernel_table(launch.stream.device, selection).of<PagedAttentionOp>()) {
    if (cuts_by_batch(kernel.name) || !kernel.declines(op, launch).empty()) continue;
    SCOPED_TRACE(kernel.name);
    const CaseMemory::Snapshot together = run(kernel, op, memory, std::byte{0xff}, launch);
    for (const int64_t chunk : {int64_t{1}, int64_t{7}, int64_t{1000}}) {
      memory.reset(std::byte{0xff});
      run_in_chunks(kernel, op, memory, chunk, launch);
      ASSERT_EQ(together, memory.outputs()) << "in chunks of " << chunk;
    }
  }
}

template <>
void expect_batch_invariance(const RopeAttentionOp& op, CaseMemory& memory, const Launch& launch,
                             KernelSelection selection) {
  for (const Kernel<RopeAttentionOp>& kernel : kernel_table(launch.stream.device, selection).of<RopeAttentionOp>()) {
    if (!kernel.declines(op, launch).empty()) continue;
    SCOPED_TRACE(kernel.name);
    const CaseMemory::Snapshot together = run(kernel, op, memory, std::byte{0xff}, launch);
    const int64_t sequences = op.attention.num_sequences();
    for (const int64_t piece : {int64_t{1}, int64_t{4}}) {
      if (piece >= sequences) continue;
      memory.reset(std::byte{0xff});
      for (int64_t begin = 0; begin < sequences; begin += piece) {
        const int64_t count = std::min(piece, sequences - begin);
        std::vector<int32_t> starts(static_cast<size_t>(count) + 1);
        std::iota(starts.begin(), starts.end(), 0);
        const RopeAttentionOp part = sequences_of(op, begin, count, memory.integers(Shape{count + 1}, starts));
        part.check();
        ASSERT_EQ(kernel.declines(part, launch), "");
        kernel.run(part, launch);
      }
      ASSERT_EQ(together, memory.outputs()) << "in batches of " << piece;
    }
  }
}

}  // namespace octet::ops_test
