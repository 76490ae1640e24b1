// Avx512Vnni: Avx512 with one instruction for two products and their addition to a lane. Included only after
// avx512_vnni.cc's target pragma.
#pragma once

#include "octet/kernels/cpu/avx512_vector.h"

namespace octet {

struct Avx512Vnni : Avx512 {
  [[gnu::always_inline]] static inline Int add_products(Int a, Int b, Int sum) {
    return _mm512_dpwssd_epi32(sum, a, b);
  }
};

}  // namespace octet
