// Rotary position embedding of one head.
#pragma once

#include <cstddef>
#include <type_traits>

#include "rope_pairs.hpp"
#include "simd.hpp"

namespace qwen3::kernels {

namespace rope_detail {

template <typename T>
void rotate(T& first, T& second, T sine, T cosine) {
  if constexpr (std::is_same_v<T, double>) {
    const double x0 = first;
    const double x1 = second;
    first = x0 * cosine - x1 * sine;
    second = x0 * sine + x1 * cosine;
  } else {
    const float x0 = to_float(first);
    const float x1 = to_float(second);
    first = from_float<T>(x0 * to_float(cosine) - x1 * to_float(sine));
    second = from_float<T>(x0 * to_float(sine) + x1 * to_float(cosine));
  }
}

}  // namespace rope_detail

// Rotates a head of 2 * pairs contiguous elements; y may be x. sine and cosine hold one value per
// pair.
template <typename T>
void rope_head(T* y, const T* x, const T* sine, const T* cosine, std::size_t pairs,
               RopePairs layout) {
  const bool interleaved = layout == RopePairs::kInterleaved;
  std::size_t i = 0;
  if constexpr (!std::is_same_v<T, double>) {
    constexpr std::size_t kLanes = simd::kLanes;
    for (; !interleaved && i + kLanes <= pairs; i += kLanes) {
      const simd::F32 x0 = simd::load(x + i);
      const simd::F32 x1 = simd::load(x + pairs + i);
      const simd::F32 s = simd::load(sine + i);
      const simd::F32 c = simd::load(cosine + i);
      simd::store(y + i, x0 * c - x1 * s);
      simd::store(y + pairs + i, x0 * s + x1 * c);
    }
  }
  for (; i < pairs; ++i) {
    const std::size_t first = interleaved ? 2 * i : i;
    const std::size_t second = interleaved ? 2 * i + 1 : i + pairs;
    T x0 = x[first];
    T x1 = x[second];
    rope_detail::rotate(x0, x1, sine[i], cosine[i]);
    y[first] = x0;
    y[second] = x1;
  }
}

}  // namespace qwen3::kernels
