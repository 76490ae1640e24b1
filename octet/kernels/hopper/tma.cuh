// The bulk copy engine (TMA) and its barriers, for kernels that stream matrices through shared memory.
//
// A matrix is read in chunks: 128 bytes of a row, the width of the 128-byte swizzle. In shared memory a chunk of R rows
// lies as R x 128 bytes from a 1,024-byte boundary; its 16-byte unit u of row r lies at unit u ^ (r % 8), so that eight
// rows' equal units are in different banks.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "octet/kernels/cuda/launch.cuh"
#include "octet/kernels/hopper/warp_mma.cuh"
#include "octet/tensor/tensor.h"

namespace octet {

inline constexpr int kChunkBytes = 128;
inline constexpr int kSwizzleAlignment = 1024;

// Whether the copy engine can read this matrix; if not, why.
inline std::string tma_declines(const ConstTensor& matrix, std::string_view name) {
  const int64_t stride_bytes = matrix.row_stride * dtype_bytes(matrix.dtype);
  if (stride_bytes % 16 != 0 || matrix.dim(1) * dtype_bytes(matrix.dtype) % 16 != 0) {
    return fmt::format("{} must have rows of a multiple of 16 bytes, not {} elements", name, matrix.dim(1));
  }
  if (reinterpret_cast<uintptr_t>(matrix.bytes) % 16 != 0) return fmt::format("{} must be aligned to 16 bytes", name);
  if (matrix.dim(0) > INT32_MAX || stride_bytes > INT32_MAX) return fmt::format("{} is too large", name);
  return "";
}

// How a matrix [rows, columns] is copied: boxes of `box_rows` rows x `box_chunks` chunks, zeros beyond the edges.
// When a row is whole chunks one copy brings the box, else (by_chunk) one copy a chunk.
struct ChunkMap {
  CUtensorMap map;
  bool by_chunk;
};

inline auto encode_tiled() {
  using Encode = decltype(&cuTensorMapEncodeTiled);
  static const Encode encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found{};
    check_cuda(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found),
               "cuTensorMapEncodeTiled");
    return reinterpret_cast<Encode>(function);
  }();
  return encode;
}

inline ChunkMap make_chunk_map(const ConstTensor& matrix, int box_rows, int box_chunks) {
  const auto row_bytes = static_cast<cuuint64_t>(matrix.dim(1) * dtype_bytes(matrix.dtype));
  const auto stride = static_cast<cuuint64_t>(matrix.row_stride * dtype_bytes(matrix.dtype));
  const auto rows = static_cast<cuuint64_t>(matrix.dim(0));
  ChunkMap result{.map = {}, .by_chunk = row_bytes % kChunkBytes != 0};
  const cuuint64_t dims[3] = {result.by_chunk ? row_bytes : kChunkBytes, rows, row_bytes / kChunkBytes};
  const cuuint64_t strides[2] = {stride, kChunkBytes};
  const cuuint32_t box[3] = {kChunkBytes, static_cast<cuuint32_t>(box_rows), static_cast<cuuint32_t>(box_chunks)};
  const cuuint32_t steps[3] = {1, 1, 1};
  // Fetching 256 bytes into L2 at a time costs a tenth of the bandwidth; 128 is a chunk.
  const CUresult status =
      encode_tiled()(&result.map, CU_TENSOR_MAP_DATA_TYPE_UINT8, result.by_chunk ? 2 : 3,
                     const_cast<std::byte*>(matrix.bytes), dims, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                     CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS) {
    fail(ErrorCode::kInternal, "cuTensorMapEncodeTiled: error {} for {} {} in boxes of {} x {}",
         static_cast<int>(status), dtype_name(matrix.dtype), matrix.shape.to_string(), box_rows, box_chunks);
  }
  return result;
}

// How a matrix is written: boxes of `box_rows` rows x `box_bytes` (32, 64 or 128), what lies beyond the edges left out.
// In shared memory a box lies as rows of box_bytes, 16-byte unit u of row r at swizzled_unit<box_bytes>(u, r).
inline CUtensorMap make_store_map(const Tensor& matrix, int box_rows, int box_bytes) {
  const cuuint64_t dims[2] = {static_cast<cuuint64_t>(matrix.dim(1) * dtype_bytes(matrix.dtype)),
                              static_cast<cuuint64_t>(matrix.dim(0))};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(matrix.row_stride * dtype_bytes(matrix.dtype))};
  const cuuint32_t box[2] = {static_cast<cuuint32_t>(box_bytes), static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[2] = {1, 1};
  CUtensorMap map{};
  const CUtensorMapSwizzle swizzle = box_bytes == 128  ? CU_TENSOR_MAP_SWIZZLE_128B
                                     : box_bytes == 64 ? CU_TENSOR_MAP_SWIZZLE_64B
                                                       : CU_TENSOR_MAP_SWIZZLE_32B;
  const CUresult status = encode_tiled()(&map, CU_TENSOR_MAP_DATA_TYPE_UINT8, 2, matrix.bytes, dims, strides, box,
                                         steps, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, CU_TENSOR_MAP_L2_PROMOTION_NONE,
                                         CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS) {
    fail(ErrorCode::kInternal, "cuTensorMapEncodeTiled: error {} for writing {} {} in boxes of {} x {} bytes",
         static_cast<int>(status), dtype_name(matrix.dtype), matrix.shape.to_string(), box_rows, box_bytes);
  }
  return map;
}

// Barriers in shared memory, by address. A phase ends when `count` arrivals and all announced bytes have come.
__device__ inline void init_barrier(uint32_t barrier, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count));
}
// After init_barrier, before other threads or the copy engine use the barriers (then a __syncthreads).
__device__ inline void publish_barriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ inline void arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ inline void arrive_expecting(uint32_t barrier, uint32_t num_bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(num_bytes) : "memory");
}
// Until the phase of this parity (0 first) has ended.
__device__ inline void wait_barrier(uint32_t barrier, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// What the L2 cache does with the lines of a copy.
__device__ inline uint64_t evict_first_policy() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
__device__ inline uint64_t evict_last_policy() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

__device__ inline void prefetch_map(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

// Starts the copy of the box of box_rows rows at (row, chunk) to `to`; its bytes count at the barrier. Rows beyond the
// matrix count as well and cost more time than others.
template <int kBoxChunks>
__device__ inline void copy_box(uint32_t to, const CUtensorMap& map, bool by_chunk, int row, int chunk, int box_rows,
                                uint32_t barrier, uint64_t policy) {
  if (!by_chunk) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint "
        "[%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(to),
        "l"(&map), "r"(0), "r"(row), "r"(chunk), "r"(barrier), "l"(policy)
        : "memory");
    return;
  }
  for (int i = 0; i < kBoxChunks; ++i) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint "
        "[%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to + i * box_rows * kChunkBytes),
        "l"(&map), "r"((chunk + i) * kChunkBytes), "r"(row), "r"(barrier), "l"(policy)
        : "memory");
  }
}

// The same box of one chunk to the same place, and its bytes to the barrier at the same place, in every CTA of the
// cluster whose bit is set in `ctas`.
__device__ inline void copy_box_to_all(uint32_t to, const CUtensorMap& map, bool by_chunk, int row, int chunk,
                                       uint32_t barrier, int ctas) {
  if (by_chunk) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to),
        "l"(&map), "r"(chunk * kChunkBytes), "r"(row), "r"(barrier), "h"(static_cast<uint16_t>(ctas))
        : "memory");
    return;
  }
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster "
      "[%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(to),
      "l"(&map), "r"(0), "r"(row), "r"(chunk), "r"(barrier), "h"(static_cast<uint16_t>(ctas))
      : "memory");
}

// Where a 16-byte unit of a row lies that the copy engine writes: rows of kRowBytes, in the swizzle of that width.
template <int kRowBytes>
__device__ constexpr int swizzled_unit(int unit, int row) {
  return unit ^ (row / (128 / kRowBytes) % (kRowBytes / 16));
}

// Starts the copy of a box from shared memory to (row, byte) of the matrix; what threads wrote there they must have
// made visible with end_writes(). The thread's copies so far are one group with commit_stores().
__device__ inline void store_box(const CUtensorMap& map, uint32_t from, int row, int byte) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(&map), "r"(byte),
               "r"(row), "r"(from)
               : "memory");
}
__device__ inline void end_writes() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
__device__ inline void commit_stores() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// Until the thread's stores have read all that they write; until they are done.
__device__ inline void wait_for_store_reads() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }
__device__ inline void wait_for_stores() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }

}  // namespace octet
