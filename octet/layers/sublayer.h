// Sublayer: one half of a pre-norm decoder layer, attention or feed-forward. It adds what the half before it left to
// the residual stream, normalises, computes, and leaves its own share of the sum over ranks.
#pragma once

#include <vector>

#include "octet/layers/norm.h"
#include "octet/layers/rope.h"

namespace octet {

class Sublayer {
 public:
  virtual ~Sublayer() = default;
  Sublayer(const Sublayer&) = delete;
  Sublayer& operator=(const Sublayer&) = delete;

  // residual [T, H] += x summed over ranks; x = this half's output. Takes no arena memory beyond the call.
  virtual void operator()(Step& step, const RopeAngles& angles, Tensor residual, Partial& x) const = 0;
  virtual int64_t scratch_bytes(int64_t num_tokens) const = 0;  // at most, in the arena, during a call
  virtual void describe(std::vector<LinearRow>& rows) const = 0;

  const RmsNorm& norm() const { return norm_; }

 protected:
  explicit Sublayer(RmsNorm norm) : norm_(std::move(norm)) {}

 private:
  RmsNorm norm_;
};

}  // namespace octet
