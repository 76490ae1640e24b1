// Conversions between F32 and the storage types in registers, and 16-byte accesses of memory. The results are the bits
// of octet/tensor's reference conversions: to nearest even, saturating for 8 bits, NaN stays NaN. Reference codes of
// NaN keep the sign where the processor's do not: E4M3 0x7f for either, which is the same value.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "octet/tensor/tensor.h"

namespace octet {

// Two at once, the unit of the processor's conversions: `.x` lies at the lower address.
__device__ inline uint32_t pack_bf16(float2 v) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(v.y), "f"(v.x));
  return packed;
}
__device__ inline float2 unpack_bf16(uint32_t packed) {
  return {__uint_as_float(packed << 16), __uint_as_float(packed & 0xffff0000u)};
}
__device__ inline float2 unpack_f16(uint32_t packed) {
  return __half22float2(*reinterpret_cast<const __half2*>(&packed));
}

__device__ inline uint16_t pack_e4m3(float2 v) {
  uint16_t packed;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(packed) : "f"(v.y), "f"(v.x));
  return packed;
}
__device__ inline uint16_t pack_e5m2(float2 v) {
  uint16_t packed;
  asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(packed) : "f"(v.y), "f"(v.x));
  return packed;
}
// As two halves (exact for both formats), then as F32.
__device__ inline uint32_t e4m3_to_f16(uint16_t packed) {
  uint32_t halves;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(packed));
  return halves;
}
__device__ inline uint32_t e5m2_to_f16(uint16_t packed) {
  uint32_t halves;
  asm("cvt.rn.f16x2.e5m2x2 %0, %1;" : "=r"(halves) : "h"(packed));
  return halves;
}
__device__ inline float2 unpack_e4m3(uint16_t packed) { return unpack_f16(e4m3_to_f16(packed)); }
__device__ inline float2 unpack_e5m2(uint16_t packed) { return unpack_f16(e5m2_to_f16(packed)); }

// One value of any stored type.
__device__ inline float device_f32(float value) { return value; }
__device__ inline float device_f32(BF16 value) { return __uint_as_float(static_cast<uint32_t>(value.bits) << 16); }
__device__ inline float device_f32(F16 value) { return __half2float(__half(__half_raw{value.bits})); }
__device__ inline float device_f32(int8_t value) { return static_cast<float>(value); }
__device__ inline float device_f32(F8E4M3 value) { return unpack_e4m3(value.bits).x; }
__device__ inline float device_f32(F8E5M2 value) { return unpack_e5m2(value.bits).x; }

// The value as T, to nearest even, saturating.
template <class T>
__device__ inline T device_from_f32(float value) {
  if constexpr (std::is_same_v<T, float>) {
    return value;
  } else if constexpr (std::is_same_v<T, BF16>) {
    return BF16{__bfloat16_as_ushort(__float2bfloat16_rn(value))};
  } else if constexpr (std::is_same_v<T, F8E4M3>) {
    return F8E4M3{static_cast<uint8_t>(pack_e4m3({value, 0.0f}))};
  } else {
    static_assert(std::is_same_v<T, F8E5M2>);
    return F8E5M2{static_cast<uint8_t>(pack_e5m2({value, 0.0f}))};
  }
}

__device__ inline BF16 device_bf16(float value) { return BF16{__bfloat16_as_ushort(__float2bfloat16_rn(value))}; }

// What a kernel writes in one of two types, chosen at run time where a branch costs nothing.
__device__ inline void store_f32_or_bf16(void* out, int64_t index, float value, bool as_f32) {
  if (as_f32) {
    static_cast<float*>(out)[index] = value;
  } else {
    static_cast<BF16*>(out)[index] = device_bf16(value);
  }
}

// kCount elements of T at once, in accesses of at most 16 bytes. `from` and `to` are aligned to the access: 16 bytes or
// the kCount elements, whichever is less.
template <int kBytes>
struct Words {
  static constexpr int kAccess = kBytes < 16 ? kBytes : 16;
  static_assert(kBytes % kAccess == 0 && (kAccess & (kAccess - 1)) == 0 && kAccess >= 2);
  union {
    uint16_t half[kBytes / 2];
    uint32_t word[kBytes / 4 > 0 ? kBytes / 4 : 1];
    uint2 pair[kBytes / 8 > 0 ? kBytes / 8 : 1];
    uint4 quad[kBytes / 16 > 0 ? kBytes / 16 : 1];
  };
  __device__ void load(const void* from) {
    if constexpr (kAccess == 16) {
#pragma unroll
      for (int i = 0; i < kBytes / 16; ++i) quad[i] = static_cast<const uint4*>(from)[i];
    } else if constexpr (kAccess == 8) {
      pair[0] = *static_cast<const uint2*>(from);
    } else if constexpr (kAccess == 4) {
      word[0] = *static_cast<const uint32_t*>(from);
    } else {
      half[0] = *static_cast<const uint16_t*>(from);
    }
  }
  __device__ void store(void* to) const {
    if constexpr (kAccess == 16) {
#pragma unroll
      for (int i = 0; i < kBytes / 16; ++i) static_cast<uint4*>(to)[i] = quad[i];
    } else if constexpr (kAccess == 8) {
      *static_cast<uint2*>(to) = pair[0];
    } else if constexpr (kAccess == 4) {
      *static_cast<uint32_t*>(to) = word[0];
    } else {
      *static_cast<uint16_t*>(to) = half[0];
    }
  }
};

// kCount elements of storage type T as F32, an even number or one.
template <class T>
__device__ inline void load_f32(const T* from, float (&to)[1]) {
  to[0] = device_f32(*from);
}
template <class T, int kCount>
__device__ inline void load_f32(const T* from, float (&to)[kCount]) {
  Words<kCount* static_cast<int>(sizeof(T))> words;
  words.load(from);
#pragma unroll
  for (int i = 0; i < kCount / 2; ++i) {
    float2 v;
    if constexpr (sizeof(T) == 4) {
      v = {__uint_as_float(words.word[2 * i]), __uint_as_float(words.word[2 * i + 1])};
    } else if constexpr (std::is_same_v<T, BF16>) {
      v = unpack_bf16(words.word[i]);
    } else if constexpr (std::is_same_v<T, F16>) {
      v = unpack_f16(words.word[i]);
    } else if constexpr (std::is_same_v<T, F8E4M3>) {
      v = unpack_e4m3(words.half[i]);
    } else {
      static_assert(std::is_same_v<T, F8E5M2>);
      v = unpack_e5m2(words.half[i]);
    }
    to[2 * i] = v.x;
    to[2 * i + 1] = v.y;
  }
}

template <class T>
__device__ inline void store_f32(T* to, const float (&from)[1]) {
  *to = device_from_f32<T>(from[0]);
}
template <class T, int kCount>
__device__ inline void store_f32(T* to, const float (&from)[kCount]) {
  Words<kCount* static_cast<int>(sizeof(T))> words;
#pragma unroll
  for (int i = 0; i < kCount / 2; ++i) {
    const float2 v{from[2 * i], from[2 * i + 1]};
    if constexpr (sizeof(T) == 4) {
      words.word[2 * i] = __float_as_uint(v.x);
      words.word[2 * i + 1] = __float_as_uint(v.y);
    } else if constexpr (std::is_same_v<T, BF16>) {
      words.word[i] = pack_bf16(v);
    } else if constexpr (std::is_same_v<T, F8E4M3>) {
      words.half[i] = pack_e4m3(v);
    } else {
      static_assert(std::is_same_v<T, F8E5M2>);
      words.half[i] = pack_e5m2(v);
    }
  }
  words.store(to);
}

}  // namespace octet
