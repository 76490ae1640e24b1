// How weights of each type come into registers: straight from a row for few tokens, L rows at a time for panels.
#pragma once

#include <cstring>
#include <type_traits>

#include "octet/kernels/cpu/matmul_parts.h"
#include "octet/kernels/cpu/vector_math.h"

namespace octet {

// An FP8 code of a weight with scales per group or block of columns.
struct GroupedF8E4M3 {
  F8E4M3 code;
};

// How weights of type W come into registers: vectors per load, and the factor the load left out.
template <class V, class W>
struct WeightLoad {
  static constexpr bool kGrouped = std::is_same_v<W, GroupedF8E4M3>;
  static constexpr bool kQuads = std::is_same_v<W, F8E4M3> || kGrouped;
  static constexpr int kVectors = kQuads ? 4 : 1;
  static constexpr int kElements = kVectors * V::kLanes;
  static constexpr float kScale = kQuads ? kQuadsScale : 1.0f;

  [[gnu::always_inline]] static inline void load(const W* p, typename V::Float (&out)[kVectors]) {
    if constexpr (kQuads) {
      V::load_quads(reinterpret_cast<const F8E4M3*>(p), out);
    } else {
      out[0] = V::load(p);
    }
  }
  // The first `count` elements, zeros behind them.
  [[gnu::always_inline]] static inline void load_partial(const W* p, int64_t count,
                                                         typename V::Float (&out)[kVectors]) {
    W elements[kElements] = {};
    std::memcpy(elements, p, static_cast<size_t>(count) * sizeof(W));
    load(elements, out);
  }
  // Whole steps.
  static constexpr int64_t padded(int64_t num_k) { return (num_k + kElements - 1) / kElements * kElements; }
};

// A matmul as the inner loops see it. x lies in the order of K that the weights are decoded in, with zeros up to a
// multiple of WeightLoad::kElements behind each row of num_k.
template <class W>
struct MatmulView {
  const W* weight;
  int64_t num_k;
  const float* x;
  int64_t x_stride;
  float* out;
  int64_t out_stride;
  float sum_factor;  // of the raw sum: undoes staging and decoding
  OutputScales scales;
  GroupScales groups;
};

// How kLanes rows of weights of type W become vectors of one column each: the rows' dwords are transposed as they are,
// and lanes, which then are rows, decoded. Element i of dword d of a row goes to residue(d, i) of the order of K, at
// step(d, i) (matmul.h).
template <class V, class W>
struct WeightColumns {
  static constexpr bool kQuads = WeightLoad<V, W>::kQuads;
  static constexpr int kPerDword = 4 / sizeof(W);
  static constexpr int kCount = V::kLanes * kPerDword;  // columns at a time

  static constexpr int residue(int d, int i) { return kQuads ? d : (kPerDword * d + i) % V::kLanes; }
  static constexpr int step(int d, int i) { return kQuads ? i : (kPerDword * d + i) / V::kLanes; }

  // True values.
  [[gnu::always_inline]] static inline void decode(typename V::Int dwords, typename V::Float (&out)[kPerDword]) {
    if constexpr (kQuads) {
      V::decode_quads(dwords, out);
      for (auto& values : out) values = V::mul(values, V::set(kQuadsScale));
    } else if constexpr (std::is_same_v<W, BF16>) {
      out[0] = V::from_bits(V::template shift_left<16>(dwords));
      out[1] = V::from_bits(V::iand(dwords, V::iset(static_cast<int32_t>(0xffff0000u))));
    } else if constexpr (std::is_same_v<W, F16>) {
      F16 halves[V::kLanes];
      auto* bits = reinterpret_cast<uint16_t*>(halves);
      V::store_low(bits, V::iand(dwords, V::iset(0xffff)));
      out[0] = V::load(halves);
      V::store_low(bits, V::template shift_right<16>(dwords));
      out[1] = V::load(halves);
    } else if constexpr (std::is_same_v<W, int8_t>) {
      out[0] = V::to_float(V::template shift_right_signed<24>(V::template shift_left<24>(dwords)));
      out[1] = V::to_float(V::template shift_right_signed<24>(V::template shift_left<16>(dwords)));
      out[2] = V::to_float(V::template shift_right_signed<24>(V::template shift_left<8>(dwords)));
      out[3] = V::to_float(V::template shift_right_signed<24>(dwords));
    } else {
      out[0] = V::from_bits(dwords);
    }
  }
};

}  // namespace octet
