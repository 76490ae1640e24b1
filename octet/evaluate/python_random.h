// The numbers of Python's random.Random, from an integer seed: lm-evaluation-harness draws few-shot examples with it,
// so prompts are the same only if these are.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace octet {

class PythonRandom {
 public:
  explicit PythonRandom(uint32_t seed);
  // random.Random.sample(range(size), count): `count` different numbers below `size`, in the order drawn. count <=
  // size.
  std::vector<size_t> sample(size_t size, size_t count);
  // 0 <= result < bound, as Random.randrange(bound); bound <= 2^32.
  uint64_t below(uint64_t bound);

 private:
  static constexpr size_t kWords = 624;
  uint32_t next();  // MT19937's, 32 bits
  void refill();

  std::array<uint32_t, kWords> state_{};
  size_t used_ = kWords;
};

}  // namespace octet
