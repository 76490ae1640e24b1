#include "octet/device/comm.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>

#include "octet/base/error.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace octet {
namespace {

// A step has some 60 barriers, a few microseconds apart: spin for about as long, then sleep in the kernel.
constexpr int kSpins = 2000;

void pause_cpu() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

void check_gather(const ConstTensor& part, const Tensor& out, int world_size) {
  OCTET_CHECK(part.rank() == 2 && out.rank() == 2 && part.dtype == DType::kF32 && out.dtype == DType::kF32);
  OCTET_CHECK(out.dim(0) == part.dim(0) && out.dim(1) == world_size * part.dim(1));
}

void copy_columns(const ConstTensor& part, const Tensor& out, int64_t first_column) {
  const auto row_bytes = static_cast<size_t>(part.dim(1)) * sizeof(float);
  for (int64_t t = 0; t < part.dim(0); ++t) {
    const float* from = part.row<float>(t);
    float* to = out.row<float>(t) + first_column;
    if (from != to) std::memcpy(to, from, row_bytes);
  }
}

class SingleComm final : public Comm {
 public:
  int rank() const override { return 0; }
  int world_size() const override { return 1; }
  void all_reduce_sum(Tensor, Stream) override {}
  void all_reduce_max(Tensor, Stream) override {}
  void all_gather_columns(ConstTensor part, Tensor out, Stream) override {
    check_gather(part, out, 1);
    copy_columns(part, out, 0);
  }
  void barrier() override {}
  void abort() override {}
};

// What the ranks of one group share. Owned by all of them: ranks end in any order.
class CpuGroup {
 public:
  explicit CpuGroup(int world_size) : parts_(static_cast<size_t>(world_size)) {}

  int world_size() const { return static_cast<int>(parts_.size()); }
  // What `rank` brought to the collective under way; ordered by the barriers around it.
  ConstTensor& part(int rank) { return parts_[static_cast<size_t>(rank)]; }

  void barrier() {
    const uint32_t seen = generation_.load(std::memory_order_acquire);
    throw_if_aborted();
    if (num_arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == world_size()) {
      num_arrived_.store(0, std::memory_order_relaxed);
      generation_.fetch_add(1, std::memory_order_acq_rel);
      generation_.notify_all();
      return;
    }
    for (int spins = 0; generation_.load(std::memory_order_acquire) == seen; ++spins) {
      if (spins < kSpins) {
        pause_cpu();
      } else {
        generation_.wait(seen, std::memory_order_acquire);
      }
    }
    throw_if_aborted();
  }

  void abort() {
    aborted_.store(true, std::memory_order_release);
    generation_.fetch_add(1, std::memory_order_acq_rel);
    generation_.notify_all();
  }

 private:
  void throw_if_aborted() const {
    if (aborted_.load(std::memory_order_acquire)) fail(ErrorCode::kInternal, "another rank of this group failed");
  }

  std::vector<ConstTensor> parts_;
  std::atomic<int> num_arrived_{0};
  std::atomic<uint32_t> generation_{0};  // rises by one per barrier, and at an abort; 32 bits: the futex's own width
  std::atomic<bool> aborted_{false};
};

class CpuComm final : public Comm {
 public:
  CpuComm(std::shared_ptr<CpuGroup> group, int rank) : group_(std::move(group)), rank_(rank) {}
  int rank() const override { return rank_; }
  int world_size() const override { return group_->world_size(); }

  void all_reduce_sum(Tensor x, Stream) override {
    all_reduce(x, [](float a, float b) { return a + b; });
  }
  void all_reduce_max(Tensor x, Stream) override {
    all_reduce(x, [](float a, float b) { return std::max(a, b); });
  }

  void all_gather_columns(ConstTensor part, Tensor out, Stream) override {
    check_gather(part, out, world_size());
    group_->part(rank_) = part;
    group_->barrier();
    check_same_shapes(part);
    for (int r = 0; r < world_size(); ++r) copy_columns(group_->part(r), out, r * part.dim(1));
    group_->barrier();  // nobody may touch its part before all have read it
  }

  void barrier() override { group_->barrier(); }
  void abort() override { group_->abort(); }

 private:
  void check_same_shapes(const ConstTensor& mine) {
    for (int r = 0; r < world_size(); ++r) {
      const ConstTensor& other = group_->part(r);
      if (other.shape == mine.shape) continue;
      fail(ErrorCode::kInternal, "collective: rank {} brought {}, rank {} {}", rank_, mine.shape.to_string(), r,
           other.shape.to_string());
    }
  }

  // Rank r combines the r-th slice of all parts, in rank order, and writes it to all parts: no scratch, and every rank
  // gets the same bits. Only rank r touches the r-th slices between the barriers.
  template <class Combine>
  void all_reduce(Tensor x, Combine combine) {
    OCTET_CHECK(x.dtype == DType::kF32 && x.contiguous());
    group_->part(rank_) = x;
    group_->barrier();
    check_same_shapes(x);
    const int64_t n = x.num_elements();
    constexpr int64_t kCacheLine = 16;  // floats: two ranks never write to one line
    const int64_t per_rank = (n / world_size() + kCacheLine) / kCacheLine * kCacheLine;
    const int64_t begin = std::min(n, rank_ * per_rank);
    const int64_t end = rank_ + 1 == world_size() ? n : std::min(n, begin + per_rank);
    for (int64_t i = begin; i < end; ++i) {
      float value = group_->part(0).data<float>()[i];
      for (int r = 1; r < world_size(); ++r) value = combine(value, group_->part(r).data<float>()[i]);
      for (int r = 0; r < world_size(); ++r) writable(group_->part(r))[i] = value;
    }
    group_->barrier();
  }

  // A part of an all-reduce was passed as mutable; the group keeps constant views because a gather's parts are not.
  static float* writable(const ConstTensor& part) { return const_cast<float*>(part.data<float>()); }

  std::shared_ptr<CpuGroup> group_;
  int rank_;
};

}  // namespace

std::unique_ptr<Comm> make_single_comm() { return std::make_unique<SingleComm>(); }

std::vector<std::unique_ptr<Comm>> make_cpu_comms(int world_size) {
  OCTET_CHECK(world_size >= 1);
  const auto group = std::make_shared<CpuGroup>(world_size);
  std::vector<std::unique_ptr<Comm>> comms;
  for (int rank = 0; rank < world_size; ++rank) comms.push_back(std::make_unique<CpuComm>(group, rank));
  return comms;
}

}  // namespace octet
