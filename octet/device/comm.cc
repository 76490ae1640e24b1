#include "octet/device/comm.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>

#include "octet/base/error.h"
#include "octet/tensor/dispatch.h"

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
  void all_reduce_sum(Tensor) override {}
  void all_reduce_max(Tensor) override {}
  void all_gather_columns(ConstTensor part, Tensor out) override {
    check_gather(part, out, 1);
    copy_columns(part, out, 0);
  }
  void barrier() override {}
  void abort() override {}
};

// What the ranks of one group share. Owned by all of them: ranks end in any order.
class Group {
 public:
  explicit Group(int world_size, std::unique_ptr<PeerGroup> gpus = nullptr)
      : parts_(static_cast<size_t>(world_size)), gpus_(std::move(gpus)) {}

  int world_size() const { return static_cast<int>(parts_.size()); }
  // What `rank` brought to the collective under way; ordered by the barriers around it.
  ConstTensor& part(int rank) { return parts_[static_cast<size_t>(rank)]; }
  const PeerGroup* gpus() const { return gpus_.get(); }

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
    if (gpus_) gpus_->abort();
    aborted_.store(true, std::memory_order_release);
    generation_.fetch_add(1, std::memory_order_acq_rel);
    generation_.notify_all();
  }

 private:
  void throw_if_aborted() const {
    if (aborted_.load(std::memory_order_acquire)) fail(ErrorCode::kInternal, "another rank of this group failed");
  }

  std::vector<ConstTensor> parts_;
  std::unique_ptr<PeerGroup> gpus_;  // nullptr: ranks are on the CPU
  std::atomic<int> num_arrived_{0};
  std::atomic<uint32_t> generation_{0};  // rises by one per barrier, and at an abort; 32 bits: the futex's own width
  std::atomic<bool> aborted_{false};
};

class GroupComm final : public Comm {
 public:
  GroupComm(std::shared_ptr<Group> group, int rank) : group_(std::move(group)), rank_(rank) {}
  int rank() const override { return rank_; }
  int world_size() const override { return group_->world_size(); }

  void all_reduce_sum(Tensor x) override {
    const auto add = [](float a, float b) { return a + b; };
    if (x.dtype == DType::kBF16) return all_reduce<BF16>(x, add);
    OCTET_CHECK(x.dtype == DType::kF32);
    all_reduce<float>(x, add);
  }
  void all_reduce_max(Tensor x) override {
    OCTET_CHECK(x.dtype == DType::kF32);
    all_reduce<float>(x, [](float a, float b) { return std::max(a, b); });
  }

  void all_gather_columns(ConstTensor part, Tensor out) override {
    check_gather(part, out, world_size());
    group_->part(rank_) = part;
    group_->barrier();
    check_same_shapes(part);
    for (int r = 0; r < world_size(); ++r) copy_columns(group_->part(r), out, r * part.dim(1));
    group_->barrier();  // nobody may touch its part before all have read it
  }

  void barrier() override { group_->barrier(); }
  void abort() override { group_->abort(); }
  const PeerMemory* peers() const override { return group_->gpus() == nullptr ? nullptr : &group_->gpus()->of(rank_); }
  void check_kernels() const override {
    if (group_->gpus() != nullptr) group_->gpus()->check(rank_);
  }

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
  template <class T, class Combine>
  void all_reduce(Tensor x, Combine combine) {
    OCTET_CHECK(x.contiguous());
    group_->part(rank_) = x;
    group_->barrier();
    check_same_shapes(x);
    const int64_t n = x.num_elements();
    constexpr int64_t kCacheLine = 64 / sizeof(T);  // elements: two ranks never write to one line
    const int64_t per_rank = (n / world_size() + kCacheLine) / kCacheLine * kCacheLine;
    const int64_t begin = std::min(n, rank_ * per_rank);
    const int64_t end = rank_ + 1 == world_size() ? n : std::min(n, begin + per_rank);
    for (int64_t i = begin; i < end; ++i) {
      float value = to_f32(group_->part(0).data<T>()[i]);
      for (int r = 1; r < world_size(); ++r) value = combine(value, to_f32(group_->part(r).data<T>()[i]));
      for (int r = 0; r < world_size(); ++r) writable<T>(group_->part(r))[i] = from_f32<T>(value);
    }
    group_->barrier();
  }

  // A part of an all-reduce was passed as mutable; the group keeps constant views because a gather's parts are not.
  template <class T>
  static T* writable(const ConstTensor& part) {
    return const_cast<T*>(part.data<T>());
  }

  std::shared_ptr<Group> group_;
  int rank_;
};

std::vector<std::unique_ptr<Comm>> comms_of(const std::shared_ptr<Group>& group) {
  std::vector<std::unique_ptr<Comm>> comms;
  for (int rank = 0; rank < group->world_size(); ++rank) comms.push_back(std::make_unique<GroupComm>(group, rank));
  return comms;
}

}  // namespace

std::unique_ptr<Comm> make_single_comm() { return std::make_unique<SingleComm>(); }

std::vector<std::unique_ptr<Comm>> make_cpu_comms(int world_size) {
  OCTET_CHECK(world_size >= 1);
  return comms_of(std::make_shared<Group>(world_size));
}

std::vector<std::unique_ptr<Comm>> make_gpu_comms(const std::vector<Device>& gpus, double patience_seconds) {
  return comms_of(
      std::make_shared<Group>(static_cast<int>(gpus.size()), std::make_unique<PeerGroup>(gpus, patience_seconds)));
}

}  // namespace octet
