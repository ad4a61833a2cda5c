// Root-mean-square norm of one row. The sum of squares runs over lanes (element j in lane j mod
// kLanes), so it depends on the row alone.
#pragma once

#include <cmath>
#include <cstddef>
#include <type_traits>

#include "simd.hpp"

namespace qwen3::kernels {

namespace norm_detail {

inline constexpr std::size_t kLanes = simd::kLanes;

// Calls body(start, count) for each vector of `size` elements; count < kLanes for the last at most.
template <typename Body>
void for_each_vector(std::size_t size, const Body& body) {
  for (std::size_t start = 0; start < size; start += kLanes) {
    body(start, size - start < kLanes ? size - start : kLanes);
  }
}

template <typename T>
simd::F32 load(const T* source, std::size_t count) {
  return count == kLanes ? simd::load(source) : simd::load_first(source, count);
}

template <typename T>
void store(T* target, simd::F32 value, std::size_t count) {
  if (count == kLanes) {
    simd::store(target, value);
  } else {
    simd::store_first(target, value, count);
  }
}

inline float inverse_rms(float sum_of_squares, std::size_t size, float epsilon) {
  return 1.0f / std::sqrt(sum_of_squares / static_cast<float>(size) + epsilon);
}

// y = x * w * scale, rounded once.
template <typename T, typename W>
void scale_row(T* y, const T* x, const W* w, std::size_t size, float scale) {
  for_each_vector(size, [&](std::size_t start, std::size_t count) {
    const simd::F32 product = load(x + start, count) * load(w + start, count);
    store(y + start, product * simd::set(scale), count);
  });
}

}  // namespace norm_detail

// y = x * w / sqrt(mean(x^2) + epsilon) over `size` contiguous elements; y may be x.
template <typename T, typename W>
void rms_norm_row(T* y, const T* x, const W* w, std::size_t size, float epsilon) {
  if constexpr (std::is_same_v<T, double>) {
    double sum = 0.0;
    for (std::size_t i = 0; i < size; ++i) {
      sum += x[i] * x[i];
    }
    const double scale =
        1.0 / std::sqrt(sum / static_cast<double>(size) + static_cast<double>(epsilon));
    for (std::size_t i = 0; i < size; ++i) {
      y[i] = x[i] * w[i] * scale;
    }
  } else {
    simd::F32 squares{};
    norm_detail::for_each_vector(size, [&](std::size_t start, std::size_t count) {
      const simd::F32 value = norm_detail::load(x + start, count);
      squares = simd::fma(value, value, squares);
    });
    norm_detail::scale_row(y, x, w, size,
                           norm_detail::inverse_rms(simd::sum(squares), size, epsilon));
  }
}

// sum_out = a + b, y = rms_norm(sum_out) * w; the squares are of the unrounded sum. sum_out may be
// a or b.
template <typename T, typename W>
void add_rms_norm_row(T* y, T* sum_out, const T* a, const T* b, const W* w, std::size_t size,
                      float epsilon) {
  if constexpr (std::is_same_v<T, double>) {
    for (std::size_t i = 0; i < size; ++i) {
      sum_out[i] = a[i] + b[i];
    }
    rms_norm_row(y, sum_out, w, size, epsilon);
  } else {
    simd::F32 squares{};
    norm_detail::for_each_vector(size, [&](std::size_t start, std::size_t count) {
      const simd::F32 total =
          norm_detail::load(a + start, count) + norm_detail::load(b + start, count);
      norm_detail::store(sum_out + start, total, count);
      squares = simd::fma(total, total, squares);
    });
    norm_detail::scale_row(y, sum_out, w, size,
                           norm_detail::inverse_rms(simd::sum(squares), size, epsilon));
  }
}

}  // namespace qwen3::kernels
