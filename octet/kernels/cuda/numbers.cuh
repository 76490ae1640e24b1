// Values of every stored type as F32 in device code, and back: the conversions of octet/tensor by the GPU's own
// instructions, which round alike (to nearest even; 8 bits saturate).
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include "octet/tensor/tensor.h"

namespace octet {

__device__ inline float device_f32(float value) { return value; }
__device__ inline float device_f32(BF16 value) { return __uint_as_float(static_cast<uint32_t>(value.bits) << 16); }
__device__ inline float device_f32(F16 value) { return __half2float(__half(__half_raw{value.bits})); }
__device__ inline float device_f32(F8E4M3 value) {
  return __half2float(__half(__nv_cvt_fp8_to_halfraw(value.bits, __NV_E4M3)));
}
__device__ inline float device_f32(F8E5M2 value) {
  return __half2float(__half(__nv_cvt_fp8_to_halfraw(value.bits, __NV_E5M2)));
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

}  // namespace octet
