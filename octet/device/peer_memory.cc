#include "octet/device/peer_memory.h"

#include <atomic>
#include <new>

#include "octet/base/error.h"
#include "octet/device/cuda_runtime.h"
#include "octet/device/stream.h"

namespace octet {
namespace {

// Of all messages in lines that a rank sends at once. Each goes to every other rank, at twice its size.
constexpr int64_t kSmallBytes = int64_t{2} << 20;

void open_to_each_other(const std::vector<Device>& gpus) {
  for (const Device& one : gpus) {
    for (const Device& other : gpus) {
      if (one.index == other.index) continue;
      if (!cuda::can_access_peer(one.index, other.index)) {
        fail(
            ErrorCode::kUnsupported,
            "tensor_parallel_size {}: cuda:{} does not reach the memory of cuda:{} (NVLink or peer access over PCIe is "
            "needed)",
            gpus.size(), one.index, other.index);
      }
      cuda::enable_peer_access(one.index, other.index);
    }
  }
}

uint32_t read(const uint32_t& word) { return std::atomic_ref(const_cast<uint32_t&>(word)).load(); }

}  // namespace

std::vector<Device> gpus_of_ranks(Device first, int world_size) {
  if (world_size > PeerMemory::kMaxRanks) {
    fail(ErrorCode::kUnsupported, "tensor_parallel_size {}: at most {} GPUs of one host work together", world_size,
         PeerMemory::kMaxRanks);
  }
  const int num_gpus = cuda::num_devices();
  if (first.index + world_size > num_gpus) {
    fail(ErrorCode::kUnsupported, "tensor_parallel_size {}: from {} on there are {} GPUs, expected {}", world_size,
         device_name(first), num_gpus - first.index, world_size);
  }
  std::vector<Device> gpus;
  for (int rank = 0; rank < world_size; ++rank) gpus.push_back({.kind = first.kind, .index = first.index + rank});
  return gpus;
}

PeerGroup::PeerGroup(const std::vector<Device>& gpus, double patience_seconds) : patience_seconds_(patience_seconds) {
  const auto world_size = static_cast<int>(gpus.size());
  OCTET_CHECK(world_size >= 2 && world_size <= PeerMemory::kMaxRanks);
  const Device first = gpus.front();
  open_to_each_other(gpus);
  status_ = Buffer::pinned(first, sizeof(PeerStatus), "status of the ranks");
  PeerMemory memory{.world_size = world_size,
                    .max_small_bytes = kSmallBytes / world_size / 1024 * 1024,
                    .patience_ns = static_cast<uint64_t>(patience_seconds * 1e9),
                    .status = new (status_.data()) PeerStatus};
  for (int rank = 0; rank < world_size; ++rank) {
    const Device device = gpus[static_cast<size_t>(rank)];
    areas_.emplace_back(device, memory.area_bytes(), "messages between ranks");
    memory.areas[rank] = areas_.back().data();
    const StreamOwner stream(device);
    make_current(device);
    fill_bytes(areas_.back().data(), std::byte{0}, memory.area_bytes(), stream.get());
    synchronize(stream.get());
  }
  make_current(first);
  for (memory.rank = 0; memory.rank < world_size; ++memory.rank) ranks_.push_back(memory);
}

void PeerGroup::abort() {
  uint32_t none = PeerStatus::kNo;
  std::atomic_ref(ranks_.front().status->aborted).compare_exchange_strong(none, PeerStatus::kByHost);
}

void PeerGroup::check(int rank) const {
  const PeerStatus& status = *of(rank).status;
  if (read(status.gave_up_on[rank]) == 0 && read(status.was_told[rank]) == 0) return;
  for (size_t waiter = 0; waiter < ranks_.size(); ++waiter) {
    const uint32_t found = read(status.gave_up_on[waiter]);
    if (found == 0) continue;
    fail(ErrorCode::kInternal, "rank {} has waited {} s for rank {} in vain", waiter, patience_seconds_, found - 1);
  }
  fail(ErrorCode::kInternal, "another rank of this group failed");
}

}  // namespace octet
