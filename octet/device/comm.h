// Comm: the collectives of the ranks of one tensor-parallel group. One thread per rank; every rank makes the same calls
// in the same order. A rank that fails calls abort(): the others' pending and later calls throw instead of waiting for
// ever.
#pragma once

#include <memory>
#include <vector>

#include "octet/device/device.h"
#include "octet/tensor/tensor.h"

namespace octet {

class Comm {
 public:
  virtual ~Comm() = default;
  virtual int rank() const = 0;
  virtual int world_size() const = 0;
  // x = sum over ranks of x, added in rank order: the same bits on every rank. F32.
  virtual void all_reduce_sum(Tensor x, Stream stream) = 0;
  // x = elementwise maximum over ranks. F32.
  virtual void all_reduce_max(Tensor x, Stream stream) = 0;
  // out [T, world * C] = the ranks' parts [T, C] side by side. F32.
  virtual void all_gather_columns(ConstTensor part, Tensor out, Stream stream) = 0;
  virtual void barrier() = 0;
  virtual void abort() = 0;
};

// The group of one rank: every collective is the identity.
std::unique_ptr<Comm> make_single_comm();
// `world_size` ranks in this process, on the CPU: a barrier and a sum.
std::vector<std::unique_ptr<Comm>> make_cpu_comms(int world_size);

}  // namespace octet
