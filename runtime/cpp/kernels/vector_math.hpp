// exp, sigmoid and silu on float vectors.
#pragma once

#include "simd.hpp"

namespace qwen3::kernels::simd {

// e to the x within 1 ulp, subnormal results included. -inf gives 0, NaN gives NaN.
//
// Source: x = n ln 2 + r with |r| <= ln 2 / 2, and the Taylor sum of e^r up to r^7 / 7!, whose
// remainder (5.2e-9) is a tenth of an ulp. ln 2 is split so that n times its upper part is exact.
inline F32 exp(F32 x) {
  const F32 magic = set(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  x = min(set(89.0f), max(set(-104.0f), x));
  const F32 shifted = fma(x, set(1.44269504089f), magic);
  const F32 n = shifted - magic;
  F32 r = fma(n, set(-0.693359375f), x);
  r = fma(n, set(2.12194440055e-4f), r);
  F32 sum = set(1.0f / 5040.0f);
  sum = fma(sum, r, set(1.0f / 720.0f));
  sum = fma(sum, r, set(1.0f / 120.0f));
  sum = fma(sum, r, set(1.0f / 24.0f));
  sum = fma(sum, r, set(1.0f / 6.0f));
  sum = fma(sum, r, set(0.5f));
  sum = fma(sum, r, set(1.0f));
  sum = fma(sum, r, set(1.0f));
  // 2^n in two factors: the first product is exact, the second rounds once, also to a subnormal.
  const I32 exponent = reinterpret_cast<I32>(shifted) - reinterpret_cast<I32>(magic);
  const I32 half = exponent >> 1;
  const F32 first = reinterpret_cast<F32>((half + 127) << 23);
  const F32 second = reinterpret_cast<F32>((exponent - half + 127) << 23);
  return sum * first * second;
}

inline F32 sigmoid(F32 x) { return set(1.0f) / (set(1.0f) + exp(-x)); }

inline F32 silu(F32 x) { return x / (set(1.0f) + exp(-x)); }

}  // namespace qwen3::kernels::simd
