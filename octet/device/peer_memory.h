// PeerMemory: where kernels of the ranks of one host leave what they exchange. Every rank's GPU has an area that all of
// them read and write; so they do each other's other memory, once PeerGroup has opened it.
//
// An area holds, in this order:
//   counters  u32 [kMaxCtas]             the number of the last collective, the same in all; of its own GPU alone
//   mail      16 bytes [kMaxCtas][world] an address from each rank (kernels that read or write each other's tensors)
//   done      u32 [kMaxCtas][world]      the number of the last such collective that a rank's CTA has finished
//   lines     [2][world][2 * max_small_bytes]  small messages, by parity of the collective's number and by sender:
//                                        lines of 16 bytes, {word, number, word, number}
// A message in lines says by the collective's number in it that it has arrived. It may be overwritten two collectives
// later: by then its sender has heard from every rank in between, which each rank tells after it has read all before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "octet/device/buffer.h"

namespace octet {

// In memory of the host that all GPUs reach.
struct PeerStatus {
  enum Aborted : uint32_t { kNo, kByHost, kByKernel };
  uint32_t aborted = kNo;  // nobody shall wait any longer
  // By rank: one more than the rank that its kernels have waited for in vain; 0: for none.
  uint32_t gave_up_on[8] = {};
  // By rank: 1 when its kernels have stopped waiting because `aborted` said so. A word of its own: threads that are
  // told after another of their rank has given up must not hide whom that one waited for.
  uint32_t was_told[8] = {};
};

// What a rank's kernels are given. A value.
struct PeerMemory {
  static constexpr int kMaxRanks = 8;
  static constexpr int kMaxCtas = 1024;  // of a collective's kernel
  static constexpr int64_t kMailBytes = 16, kLineBytes = 16, kLineWords = 2;

  int rank = 0;
  int world_size = 0;
  int64_t max_small_bytes = 0;  // of a message in lines
  uint64_t patience_ns = 0;     // how long a kernel waits for another rank's
  std::byte* areas[kMaxRanks] = {};
  PeerStatus* status = nullptr;

  constexpr int64_t mail_begin() const { return kMaxCtas * int64_t{4}; }
  constexpr int64_t done_begin() const { return mail_begin() + kMaxCtas * kMailBytes * world_size; }
  constexpr int64_t lines_begin() const { return done_begin() + kMaxCtas * int64_t{4} * world_size; }
  constexpr int64_t area_bytes() const { return lines_begin() + int64_t{2} * world_size * 2 * max_small_bytes; }
};
static_assert(sizeof(PeerStatus::gave_up_on) / sizeof(uint32_t) == PeerMemory::kMaxRanks);

// GPUs first.index to first.index + world_size - 1. Throws Error{kUnsupported} unless there are so many, and not too
// many.
std::vector<Device> gpus_of_ranks(Device first, int world_size);

class PeerGroup {
 public:
  // The GPU of each rank: opens their memory to each other. Two ranks may be on one GPU, for tests, as long as their
  // kernels fit on it together. Throws Error{kUnsupported} naming GPUs that do not reach each other's memory.
  PeerGroup(const std::vector<Device>& gpus, double patience_seconds);

  const PeerMemory& of(int rank) const { return ranks_[static_cast<size_t>(rank)]; }
  // Kernels that wait for others stop waiting; their results are undefined.
  void abort();
  // Throws Error{kInternal} when a kernel of this rank gave up, naming whom it waited for.
  void check(int rank) const;

 private:
  double patience_seconds_;
  std::vector<PeerMemory> ranks_;
  std::vector<Buffer> areas_;
  Buffer status_;  // pinned
};

}  // namespace octet
