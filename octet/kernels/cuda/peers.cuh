// How kernels of several GPUs meet (octet/device/peer_memory.h). Every rank runs the same collectives in the same
// order, each with the same grid on all ranks, of at most PeerMemory::kMaxCtas CTAs. A CTA waits for the CTAs of its
// index on the other ranks only, so that no CTA need be resident together with another of its GPU.
//
// Numbers of collectives are counted in device memory, so that a recorded graph goes on counting. A CTA reads its own
// counter when the kernels before have ended and moves on those with its index modulo the grid: all counters are equal
// whatever the grids were, and no two CTAs touch one.
//
// Nobody waits for ever: who waits looks at the host's status now and then, and gives up when it says so or when its
// patience ends. What it computes then is garbage, and the host asks (Comm::check_kernels).
#pragma once

#include <cuda_runtime.h>

#include "octet/device/peer_memory.h"

namespace octet {

// The number of the collective that begins; after wait_for_previous().
__device__ inline uint32_t begin_collective(const PeerMemory& m) {
  const uint32_t last = reinterpret_cast<const volatile uint32_t*>(m.areas[m.rank])[blockIdx.x];
  return last == 0xffffffffu ? 2u : last + 1u;  // never 0, which is what memory held first, and alternately odd
}

// Once all threads of the CTA have begun.
__device__ inline void end_collective(const PeerMemory& m, uint32_t number) {
  auto* counters = reinterpret_cast<uint32_t*>(m.areas[m.rank]);
  for (unsigned c = blockIdx.x + threadIdx.x * gridDim.x; c < PeerMemory::kMaxCtas; c += blockDim.x * gridDim.x)
    counters[c] = number;
}

__device__ inline uint64_t global_nanoseconds() {
  uint64_t time;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(time));
  return time;
}

// One wait of one thread for another rank.
class Wait {
 public:
  __device__ Wait(const PeerMemory& m, int peer) : m_(m), peer_(peer) {}
  // Asked after each look in vain.
  __device__ bool gives_up() { return ++looks_ % kLooksPerQuestion == 0 && asks(); }

 private:
  static constexpr unsigned kLooksPerQuestion = 2048;  // some 1 ms

  __device__ bool asks() {
    const uint64_t now = global_nanoseconds();
    if (deadline_ == 0) deadline_ = now + m_.patience_ns;
    volatile PeerStatus* status = m_.status;
    const bool aborted = status->aborted != PeerStatus::kNo;
    if (!aborted && now < deadline_) return false;
    if (aborted) {
      status->was_told[m_.rank] = 1;
      return true;
    }
    status->gave_up_on[m_.rank] = static_cast<uint32_t>(peer_) + 1;
    __threadfence_system();
    status->aborted = PeerStatus::kByKernel;
    return true;
  }

  const PeerMemory& m_;
  int peer_;
  unsigned looks_ = 0;
  uint64_t deadline_ = 0;
};

// ---- lines: small messages, written to where the other rank waits for them ----

// Where `sender`'s message of this collective lies at `receiver`.
__device__ inline std::byte* lines_of(const PeerMemory& m, int receiver, int sender, uint32_t number) {
  const int64_t message = static_cast<int64_t>(number & 1u) * m.world_size + sender;
  return m.areas[receiver] + m.lines_begin() + message * 2 * m.max_small_bytes;
}

// Each half of a line is one access, of which its number says that it has arrived.
__device__ inline void store_line(std::byte* to, uint32_t first, uint32_t second, uint32_t number) {
  asm volatile("st.volatile.global.v4.u32 [%0], {%1, %2, %3, %2};" ::"l"(to), "r"(first), "r"(number), "r"(second)
               : "memory");
}
__device__ inline bool load_line(const std::byte* from, uint32_t number, uint32_t& first, uint32_t& second) {
  uint32_t first_number, second_number;
  asm volatile("ld.volatile.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(first), "=r"(first_number), "=r"(second), "=r"(second_number)
               : "l"(from)
               : "memory");
  return first_number == number && second_number == number;
}

// 16 bytes as two lines.
__device__ inline void store_quad(std::byte* to, const uint32_t (&words)[4], uint32_t number) {
  store_line(to, words[0], words[1], number);
  store_line(to + PeerMemory::kLineBytes, words[2], words[3], number);
}

// The quads i of a message for which has(i), at from + i * stride, once all have arrived.
template <int kQuads, class Has>
__device__ inline void receive_quads(const PeerMemory& m, int sender, const std::byte* from, int64_t stride,
                                     uint32_t number, Has&& has, uint32_t (&words)[kQuads][4]) {
  Wait wait(m, sender);
  bool arrived = false;
  do {
    arrived = true;
#pragma unroll
    for (int i = 0; i < kQuads; ++i) {
      if (!has(i)) continue;
      const std::byte* line = from + i * stride;
      arrived &= load_line(line, number, words[i][0], words[i][1]);
      arrived &= load_line(line + PeerMemory::kLineBytes, number, words[i][2], words[i][3]);
    }
  } while (!arrived && !wait.gives_up());
}

// ---- meetings: around reads and writes of each other's tensors ----

// What each rank's CTA of this index brings, an address, to all threads: of_rank[r]. Everything that rank r's stream
// did before this collective can be read by then.
__device__ inline void exchange_addresses(const PeerMemory& m, uint32_t number, std::byte* mine,
                                          std::byte* (&of_rank)[PeerMemory::kMaxRanks]) {
  const auto mail_of = [&](int receiver, int sender) {
    return m.areas[receiver] + m.mail_begin() +
           (static_cast<int64_t>(blockIdx.x) * m.world_size + sender) * PeerMemory::kMailBytes;
  };
  const int peer = static_cast<int>(threadIdx.x);
  if (peer < m.world_size && peer != m.rank) {
    const auto address = reinterpret_cast<uint64_t>(mine);
    __threadfence_system();
    store_line(mail_of(peer, m.rank), static_cast<uint32_t>(address), static_cast<uint32_t>(address >> 32), number);
    Wait wait(m, peer);
    uint32_t low = 0, high = 0;
    bool arrived = load_line(mail_of(m.rank, peer), number, low, high);
    while (!arrived && !wait.gives_up()) arrived = load_line(mail_of(m.rank, peer), number, low, high);
    __threadfence_system();
    // Who gives up touches nobody's memory.
    of_rank[peer] = arrived ? reinterpret_cast<std::byte*>(static_cast<uint64_t>(high) << 32 | low) : nullptr;
  } else if (peer == m.rank) {
    of_rank[peer] = mine;
  }
  __syncthreads();
}

// Until the CTAs of this index on all ranks have come here; what they wrote can be read by the kernels that follow.
__device__ inline void part(const PeerMemory& m, uint32_t number) {
  const auto done_at = [&](int receiver, int sender) {
    return reinterpret_cast<uint32_t*>(m.areas[receiver] + m.done_begin()) +
           static_cast<int64_t>(blockIdx.x) * m.world_size + sender;
  };
  __syncthreads();
  const int peer = static_cast<int>(threadIdx.x);
  if (peer >= m.world_size || peer == m.rank) return;
  asm volatile("fence.acq_rel.sys;" ::: "memory");
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(done_at(peer, m.rank)), "r"(number) : "memory");
  Wait wait(m, peer);
  uint32_t found;
  do {
    asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(found) : "l"(done_at(m.rank, peer)) : "memory");
  } while (static_cast<int32_t>(found - number) < 0 && !wait.gives_up());
}

}  // namespace octet
