// Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): a random number as a pure function
// of a key and a counter. Sampling uses (seed; sequence index, position), so a token depends on nothing but its own
// request.
#pragma once

#include <array>
#include <cstdint>

namespace octet {

using PhiloxCounter = std::array<uint32_t, 4>;

constexpr PhiloxCounter philox(PhiloxCounter counter, uint64_t key) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ k0, static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ k1, static_cast<uint32_t>(a)};
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return counter;
}

// Uniform in [0, 1) with 53 bits: the number that chooses the token at `position` of sequence `index`.
constexpr double sampling_uniform(uint64_t seed, uint32_t index, uint64_t position) {
  const PhiloxCounter bits =
      philox({static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), index, 0}, seed);
  const uint64_t word = (static_cast<uint64_t>(bits[0]) << 32) | bits[1];
  return static_cast<double>(word >> 11) * 0x1p-53;
}

// The seed of the engine's `counter`-th request that brings none.
constexpr uint64_t derived_seed(uint64_t engine_seed, uint64_t counter) {
  const PhiloxCounter bits =
      philox({static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), 0, 1}, engine_seed);
  return (static_cast<uint64_t>(bits[0]) << 32) | bits[1];
}

}  // namespace octet
