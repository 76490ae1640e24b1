// A seeded source of shapes and values for tests: the same numbers on every machine.
#pragma once

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <numbers>
#include <string_view>
#include <vector>

namespace octet::ops_test {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {  // splitmix64
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t x = state_;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  }
  int64_t between(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(next() % static_cast<uint64_t>(high - low + 1));
  }
  bool coin() { return (next() >> 40 & 1) != 0; }
  template <class T>
  T pick(std::initializer_list<T> choices) {
    return choices.begin()[between(0, static_cast<int64_t>(choices.size()) - 1)];
  }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  float normal() {
    const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
    return static_cast<float>(radius * std::cos(2.0 * std::numbers::pi * uniform()));
  }

 private:
  uint64_t state_;
};

// A case's own seed: cases do not depend on each other's order.
inline uint64_t seed_of(uint64_t base, std::string_view name) {
  for (const char c : name) base = (base ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return base;
}

}  // namespace octet::ops_test
