// One vector type of floats per instruction set, chosen at compile time.
//
// Lanes: 16 with AVX-512F, 8 with AVX2 and FMA, 4 otherwise (SSE2, NEON, or whatever the compiler
// makes of it). Sources must be compiled with -ffp-contract=off: fma() is written where it is
// meant, so that equal code gives equal bits wherever it is inlined.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "half.hpp"

#if defined(__AVX512F__) || defined(__AVX2__)
// InfiniCore's own headers up to 0.1.0 define __C, which the intrinsics use as a name; GCC 12 warns
// of its own intrinsics (bug 105593).
#pragma push_macro("__C")
#undef __C
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop
#pragma pop_macro("__C")
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace qwen3::kernels::simd {

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#define QWEN3_SIMD_AVX512 1
inline constexpr int kLanes = 16;
#if defined(__AVX512BF16__)
#define QWEN3_SIMD_AVX512_BF16 1
inline constexpr const char* kInstructionSet = "avx512-bf16";
#else
inline constexpr const char* kInstructionSet = "avx512";
#endif
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define QWEN3_SIMD_AVX2 1
inline constexpr int kLanes = 8;
inline constexpr const char* kInstructionSet = "avx2";
#elif defined(__ARM_NEON) && defined(__aarch64__)
#define QWEN3_SIMD_NEON 1
inline constexpr int kLanes = 4;
inline constexpr const char* kInstructionSet = "neon";
#else
inline constexpr int kLanes = 4;
inline constexpr const char* kInstructionSet = "portable";
#endif

using F32 = float __attribute__((vector_size(kLanes * 4)));
using I32 = std::int32_t __attribute__((vector_size(kLanes * 4)));
using U32 = std::uint32_t __attribute__((vector_size(kLanes * 4)));
using U16 = std::uint16_t __attribute__((vector_size(kLanes * 2)));

// Subtracting 0 is nothing to do, to a compiler as well; adding it would lose the sign of -0.
inline F32 set(float value) { return value - F32{}; }

inline F32 fma(F32 a, F32 b, F32 c) {
#if defined(QWEN3_SIMD_AVX512)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(QWEN3_SIMD_AVX2)
  return _mm256_fmadd_ps(a, b, c);
#elif defined(QWEN3_SIMD_NEON)
  return vfmaq_f32(c, a, b);
#else
  return a * b + c;
#endif
}

// c plus the products of a lane's two bfloat16 numbers: first those in the upper halves, then those
// in the lower ones. Each step rounds to nearest even; subnormals in and out of vdpbf16ps count
// as 0. Without that instruction nothing is won by pairs: there, tests run its order with this.
inline F32 dot_pairs(U32 a, U32 b, F32 c) {
#if defined(QWEN3_SIMD_AVX512_BF16)
  return _mm512_dpbf16_ps(c, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
#else
  const auto upper = [](U32 pairs) { return reinterpret_cast<F32>(pairs & 0xffff0000u); };
  const auto lower = [](U32 pairs) { return reinterpret_cast<F32>(pairs << 16); };
  return fma(lower(a), lower(b), fma(upper(a), upper(b), c));  // the products are exact
#endif
}

// NaN in either operand yields b, as maxps does.
inline F32 max(F32 a, F32 b) {
#if defined(QWEN3_SIMD_AVX512)
  return _mm512_max_ps(a, b);
#elif defined(QWEN3_SIMD_AVX2)
  return _mm256_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}

inline F32 min(F32 a, F32 b) {
#if defined(QWEN3_SIMD_AVX512)
  return _mm512_min_ps(a, b);
#elif defined(QWEN3_SIMD_AVX2)
  return _mm256_min_ps(a, b);
#else
  return a < b ? a : b;
#endif
}

inline F32 load(const float* source) {
  F32 value;
  std::memcpy(&value, source, sizeof value);
  return value;
}

inline F32 load(const Bf16* source) {
  U16 bits;
  std::memcpy(&bits, source, sizeof bits);
#if defined(QWEN3_SIMD_AVX512)
  return reinterpret_cast<F32>(
      reinterpret_cast<U32>(_mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(bits))) << 16);
#elif defined(QWEN3_SIMD_AVX2)
  return reinterpret_cast<F32>(
      reinterpret_cast<U32>(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(bits))) << 16);
#else
  return reinterpret_cast<F32>(__builtin_convertvector(bits, U32) << 16);
#endif
}

inline U32 load(const std::uint32_t* source) {
  U32 value;
  std::memcpy(&value, source, sizeof value);
  return value;
}

inline F32 load(const F16* source) {
#if defined(QWEN3_SIMD_AVX512)
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(source)));
#elif defined(QWEN3_SIMD_AVX2)
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source)));
#elif defined(QWEN3_SIMD_NEON)
  return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&source->bits)));
#else
  F32 value{};
  for (int lane = 0; lane < kLanes; ++lane) {
    value[lane] = to_float(source[lane]);
  }
  return value;
#endif
}

inline void store(float* target, F32 value) { std::memcpy(target, &value, sizeof value); }

inline void store(std::uint32_t* target, U32 value) { std::memcpy(target, &value, sizeof value); }

inline void store(Bf16* target, F32 value) {
  const U32 bits = reinterpret_cast<U32>(value);
  const U32 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const U32 quiet = (bits >> 16) | 0x40u;
  const U32 result = (bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded;
  const U16 narrow = __builtin_convertvector(result, U16);
  std::memcpy(target, &narrow, sizeof narrow);
}

inline void store(F16* target, F32 value) {
#if defined(QWEN3_SIMD_AVX512)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(target),
                      _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
#elif defined(QWEN3_SIMD_AVX2)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(target),
                   _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
#elif defined(QWEN3_SIMD_NEON)
  vst1_u16(&target->bits, vreinterpret_u16_f16(vcvt_f16_f32(value)));
#else
  for (int lane = 0; lane < kLanes; ++lane) {
    target[lane] = from_float<F16>(value[lane]);
  }
#endif
}

// First `count` elements, the other lanes 0.
template <typename T>
F32 load_first(const T* source, std::size_t count) {
  float lanes[kLanes] = {};
  for (std::size_t lane = 0; lane < count; ++lane) {
    lanes[lane] = to_float(source[lane]);
  }
  return load(lanes);
}

template <typename T>
void store_first(T* target, F32 value, std::size_t count) {
  T lanes[kLanes];
  store(lanes, value);
  std::memcpy(target, lanes, count * sizeof(T));
}

struct Add {
  template <typename T>
  T operator()(T a, T b) const {
    return a + b;
  }
};

struct Max {
  F32 operator()(F32 a, F32 b) const { return max(a, b); }
  float operator()(float a, float b) const { return a > b ? a : b; }
};

// All lanes put together in a fixed order: upper half onto lower half until one is left.
template <typename Fold>
inline float fold(F32 value, const Fold& together) {
  float lanes[kLanes];
  store(lanes, value);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int lane = 0; lane < width; ++lane) {
      lanes[lane] = together(lanes[lane], lanes[lane + width]);
    }
  }
  return lanes[0];
}

inline float sum(F32 value) { return fold(value, Add{}); }

inline float largest(F32 value) { return fold(value, Max{}); }

// Vectors whose lanes are put together at once.
#if defined(QWEN3_SIMD_AVX512)
inline constexpr int kFolded = 8;
#elif defined(QWEN3_SIMD_AVX2)
inline constexpr int kFolded = 4;
#else
inline constexpr int kFolded = 1;
#endif

template <typename Fold>
[[gnu::always_inline]] inline void fold_group(const F32* v, float* out, const Fold& together) {
#if defined(QWEN3_SIMD_AVX512)
  F32 quads[2];
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half, v += 4) {
    const F32 low = together(F32(_mm512_shuffle_f32x4(v[0], v[1], 0x44)),
                             F32(_mm512_shuffle_f32x4(v[0], v[1], 0xee)));
    const F32 high = together(F32(_mm512_shuffle_f32x4(v[2], v[3], 0x44)),
                              F32(_mm512_shuffle_f32x4(v[2], v[3], 0xee)));
    quads[half] = together(F32(_mm512_shuffle_f32x4(low, high, 0x88)),
                           F32(_mm512_shuffle_f32x4(low, high, 0xdd)));
  }
  const F32 pairs = together(F32(_mm512_shuffle_ps(quads[0], quads[1], 0x44)),
                             F32(_mm512_shuffle_ps(quads[0], quads[1], 0xee)));
  const F32 single = together(F32(_mm512_shuffle_ps(pairs, pairs, 0x88)),
                              F32(_mm512_shuffle_ps(pairs, pairs, 0xdd)));
  // Quarter q now starts with the results of vectors q and 4 + q.
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 0, 0, 0, 0, 0, 0, 0, 0);
  _mm256_storeu_ps(out, _mm512_castps512_ps256(_mm512_permutexvar_ps(order, single)));
#elif defined(QWEN3_SIMD_AVX2)
  const F32 low = together(F32(_mm256_permute2f128_ps(v[0], v[1], 0x20)),
                           F32(_mm256_permute2f128_ps(v[0], v[1], 0x31)));
  const F32 high = together(F32(_mm256_permute2f128_ps(v[2], v[3], 0x20)),
                            F32(_mm256_permute2f128_ps(v[2], v[3], 0x31)));
  const F32 pairs =
      together(F32(_mm256_shuffle_ps(low, high, 0x44)), F32(_mm256_shuffle_ps(low, high, 0xee)));
  const F32 single = together(F32(_mm256_shuffle_ps(pairs, pairs, 0x88)),
                              F32(_mm256_shuffle_ps(pairs, pairs, 0xdd)));
  // Half h now starts with the results of vectors h and 2 + h.
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 0, 0, 0, 0);
  _mm_storeu_ps(out, _mm256_castps256_ps128(_mm256_permutevar8x32_ps(single, order)));
#else
  *out = fold(*v, together);
#endif
}

// What fold() gives for each of `Count` vectors, bit for bit, several at a time.
template <int Count, typename Fold>
[[gnu::always_inline]] inline void folds(const F32* values, float* out, const Fold& together) {
  constexpr int kWhole = Count / kFolded * kFolded;
#pragma GCC unroll 16
  for (int done = 0; done < kWhole; done += kFolded) {
    fold_group(values + done, out + done, together);
  }
  if constexpr (Count - kWhole == 1) {
    out[kWhole] = fold(values[kWhole], together);
  } else if constexpr (Count > kWhole) {
    F32 rest[kFolded] = {};
    float results[kFolded];
    std::memcpy(rest, values + kWhole, (Count - kWhole) * sizeof *rest);
    fold_group(rest, results, together);
    std::memcpy(out + kWhole, results, (Count - kWhole) * sizeof *out);
  }
}

template <int Count>
[[gnu::always_inline]] inline void sums(const F32* values, float* out) {
  folds<Count>(values, out, Add{});
}

template <int Count>
[[gnu::always_inline]] inline void largests(const F32* values, float* out) {
  folds<Count>(values, out, Max{});
}

// Transposes kLanes vectors in place: lane j of vector i becomes lane i of vector j.
inline void transpose(F32* v) {
#if defined(QWEN3_SIMD_AVX512)
  F32 t[16];
  for (int i = 0; i < 16; i += 4) {  // 4 x 4 blocks within each quarter
    const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(v[i], v[i + 1]));
    const __m512d b = _mm512_castps_pd(_mm512_unpacklo_ps(v[i + 2], v[i + 3]));
    const __m512d c = _mm512_castps_pd(_mm512_unpackhi_ps(v[i], v[i + 1]));
    const __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(v[i + 2], v[i + 3]));
    t[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
    t[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
    t[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(c, d));
    t[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(c, d));
  }
  for (int i = 0; i < 4; ++i) {  // then the quarters among each other
    const __m512 even_low = _mm512_shuffle_f32x4(t[i], t[i + 4], 0x88);
    const __m512 odd_low = _mm512_shuffle_f32x4(t[i], t[i + 4], 0xdd);
    const __m512 even_high = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0x88);
    const __m512 odd_high = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0xdd);
    v[i] = _mm512_shuffle_f32x4(even_low, even_high, 0x88);
    v[i + 4] = _mm512_shuffle_f32x4(odd_low, odd_high, 0x88);
    v[i + 8] = _mm512_shuffle_f32x4(even_low, even_high, 0xdd);
    v[i + 12] = _mm512_shuffle_f32x4(odd_low, odd_high, 0xdd);
  }
#elif defined(QWEN3_SIMD_AVX2)
  F32 t[8];
  for (int i = 0; i < 8; i += 4) {  // 4 x 4 blocks within each half
    const __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(v[i], v[i + 1]));
    const __m256d b = _mm256_castps_pd(_mm256_unpacklo_ps(v[i + 2], v[i + 3]));
    const __m256d c = _mm256_castps_pd(_mm256_unpackhi_ps(v[i], v[i + 1]));
    const __m256d d = _mm256_castps_pd(_mm256_unpackhi_ps(v[i + 2], v[i + 3]));
    t[i] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
    t[i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, b));
    t[i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(c, d));
    t[i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(c, d));
  }
  for (int i = 0; i < 4; ++i) {  // then the halves among each other
    v[i] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x20);
    v[i + 4] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x31);
  }
#else
  for (int i = 0; i < kLanes; ++i) {
    for (int j = i + 1; j < kLanes; ++j) {
      const float lane = v[i][j];
      v[i][j] = v[j][i];
      v[j][i] = lane;
    }
  }
#endif
}

}  // namespace qwen3::kernels::simd
