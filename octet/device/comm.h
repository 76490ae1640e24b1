// Comm: how the ranks of one tensor-parallel group meet. One thread per rank; every rank makes the same calls in the
// same order. A rank that fails calls abort(): the others' pending and later calls throw instead of waiting for ever.
//
// What it computes lies in memory of the host. Tensors of a step go through ops (octet/ops/all_reduce.h and its
// neighbours): on the CPU these call here, on GPUs their kernels meet in PeerMemory.
#pragma once

#include <memory>
#include <vector>

#include "octet/device/peer_memory.h"
#include "octet/tensor/tensor.h"

namespace octet {

class Comm {
 public:
  virtual ~Comm() = default;
  virtual int rank() const = 0;
  virtual int world_size() const = 0;
  // x = sum over ranks of x, added in rank order in F32: the same bits on every rank. F32 or BF16.
  virtual void all_reduce_sum(Tensor x) = 0;
  // x = elementwise maximum over ranks. F32.
  virtual void all_reduce_max(Tensor x) = 0;
  // out [T, world * C] = the ranks' parts [T, C] side by side. F32.
  virtual void all_gather_columns(ConstTensor part, Tensor out) = 0;
  virtual void barrier() = 0;
  virtual void abort() = 0;

  // What kernels of this rank's GPU reach the others by; nullptr where ranks are no GPUs.
  virtual const PeerMemory* peers() const { return nullptr; }
  // Throws when a kernel of this rank has given up waiting for another rank's: results are undefined from then on.
  virtual void check_kernels() const {}
};

// The group of one rank: every collective is the identity.
std::unique_ptr<Comm> make_single_comm();
// `world_size` ranks in this process, on the CPU: a barrier and a sum.
std::vector<std::unique_ptr<Comm>> make_cpu_comms(int world_size);
// The same for ranks on these GPUs of this host, which reach each other's memory. A kernel waits for another rank's for
// so many seconds at most. Throws what PeerGroup throws.
std::vector<std::unique_ptr<Comm>> make_gpu_comms(const std::vector<Device>& gpus, double patience_seconds = 60.0);

}  // namespace octet
