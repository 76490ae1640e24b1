#include "octet/evaluate/python_random.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <set>

#include "octet/base/error.h"

namespace octet {

// init_by_array of Matsumoto and Nishimura's MT19937 with one word, which is how Python seeds with an integer.
PythonRandom::PythonRandom(uint32_t seed) {
  state_[0] = 19650218u;
  for (uint32_t i = 1; i < kWords; ++i) state_[i] = 1812433253u * (state_[i - 1] ^ (state_[i - 1] >> 30)) + i;
  size_t i = 1;
  const auto advance = [&] {
    if (++i < kWords) return;
    state_[0] = state_[kWords - 1];
    i = 1;
  };
  const auto mixed = [&](uint32_t factor) { return state_[i] ^ ((state_[i - 1] ^ (state_[i - 1] >> 30)) * factor); };
  for (size_t round = 0; round < kWords; ++round) {
    state_[i] = mixed(1664525u) + seed;
    advance();
  }
  for (size_t round = 1; round < kWords; ++round) {
    state_[i] = mixed(1566083941u) - static_cast<uint32_t>(i);
    advance();
  }
  state_[0] = 0x80000000u;
}

void PythonRandom::refill() {
  constexpr size_t kMiddle = 397;
  for (size_t i = 0; i < kWords; ++i) {
    const uint32_t y = (state_[i] & 0x80000000u) | (state_[(i + 1) % kWords] & 0x7fffffffu);
    state_[i] = state_[(i + kMiddle) % kWords] ^ (y >> 1) ^ ((y & 1u) != 0 ? 0x9908b0dfu : 0u);
  }
  used_ = 0;
}

uint32_t PythonRandom::next() {
  if (used_ == kWords) refill();
  uint32_t y = state_[used_++];
  y ^= y >> 11;
  y ^= (y << 7) & 0x9d2c5680u;
  y ^= (y << 15) & 0xefc60000u;
  return y ^ (y >> 18);
}

uint64_t PythonRandom::below(uint64_t bound) {
  OCTET_CHECK(bound > 0 && bound <= uint64_t{1} << 32);
  const auto bits = static_cast<uint32_t>(std::bit_width(bound));
  for (;;) {
    uint64_t drawn = bits <= 32 ? next() >> (32 - bits) : 0;
    if (bits > 32) {  // two words, the lower first
      drawn = next();
      drawn |= static_cast<uint64_t>(next() >> (64 - bits)) << 32;
    }
    if (drawn < bound) return drawn;
  }
}

std::vector<size_t> PythonRandom::sample(size_t size, size_t count) {
  OCTET_CHECK(count <= size);
  // CPython's choice between a list and a set, which draws differently.
  double set_size = 21.0;
  if (count > 5) set_size += std::pow(4.0, std::ceil(std::log(static_cast<double>(count * 3)) / std::log(4.0)));
  std::vector<size_t> result;
  if (static_cast<double>(size) <= set_size) {
    std::vector<size_t> pool(size);
    std::iota(pool.begin(), pool.end(), size_t{0});
    for (size_t i = 0; i < count; ++i) {
      const auto j = static_cast<size_t>(below(size - i));
      result.push_back(pool[j]);
      pool[j] = pool[size - i - 1];
    }
    return result;
  }
  std::set<size_t> selected;
  while (result.size() < count) {
    const auto j = static_cast<size_t>(below(size));
    if (selected.insert(j).second) result.push_back(j);
  }
  return result;
}

}  // namespace octet
