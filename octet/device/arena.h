// Arena: memory for one step's activations. One Buffer, bump allocation, reset at each step.
// It is sized before the first step (Model::activation_bytes), so that nothing is allocated after start.
#pragma once

#include <algorithm>
#include <cstdint>

#include "octet/device/buffer.h"

namespace octet {

class Arena {
 public:
  Arena(Device device, int64_t capacity_bytes);

  // Contents are undefined. An internal error when the arena is full: it is sized before the first step.
  Tensor make(DType dtype, Shape shape);
  void reset() { used_ = 0; }
  int64_t used_bytes() const { return used_; }
  int64_t peak_bytes() const { return peak_; }
  int64_t capacity_bytes() const { return buffer_.num_bytes(); }

  // Frees what was made after construction when it goes out of scope: for temporaries inside a layer.
  class Scope {
   public:
    explicit Scope(Arena& arena) : arena_(arena), mark_(arena.used_) {}
    ~Scope() { arena_.used_ = mark_; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Arena& arena_;
    int64_t mark_;
  };

 private:
  Buffer buffer_;
  int64_t used_ = 0;
  int64_t peak_ = 0;
};

}  // namespace octet
