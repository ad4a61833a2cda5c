// Softmax of one row. The exponentials are summed over lanes (element j in lane j mod kLanes), so
// masked or padded elements at the end do not change the bits of the others.
#pragma once

#include <cstddef>

#include "scratch.hpp"
#include "vector_math.hpp"

namespace qwen3::kernels {

namespace softmax_detail {

// Copies a strided row to floats, pads the last vector with -inf and returns the largest element.
template <typename T>
float gather(const T* x, std::ptrdiff_t stride, std::size_t size, float* row) {
  constexpr std::size_t kLanes = simd::kLanes;
  simd::F32 top = simd::set(-__builtin_inff());
  std::size_t j = 0;
  for (; stride == 1 && j + kLanes <= size; j += kLanes) {
    const simd::F32 values = simd::load(x + j);
    simd::store(row + j, values);
    top = simd::max(top, values);
  }
  float largest = simd::largest(top);
  for (; j < size; ++j) {
    row[j] = to_float(x[static_cast<std::ptrdiff_t>(j) * stride]);
    largest = row[j] > largest ? row[j] : largest;
  }
  for (; j % kLanes != 0; ++j) {
    row[j] = -__builtin_inff();
  }
  return largest;
}

template <typename T>
void scatter(const float* row, std::size_t size, T* y, std::ptrdiff_t stride) {
  constexpr std::size_t kLanes = simd::kLanes;
  std::size_t j = 0;
  for (; stride == 1 && j + kLanes <= size; j += kLanes) {
    simd::store(y + j, simd::load(row + j));
  }
  for (; j < size; ++j) {
    y[static_cast<std::ptrdiff_t>(j) * stride] = from_float<T>(row[j]);
  }
}

}  // namespace softmax_detail

// y[j] = exp(x[j] - max) / sum for j < visible, 0 for visible <= j < size; y may be x.
//
// Args:
//   visible: At least 1.
template <typename T>
void softmax_row(T* y, std::ptrdiff_t y_stride, const T* x, std::ptrdiff_t x_stride,
                 std::size_t visible, std::size_t size) {
  constexpr std::size_t kLanes = simd::kLanes;
  thread_local Scratch scratch;
  float* row = scratch.reserve(visible + kLanes);
  const simd::F32 top = simd::set(softmax_detail::gather(x, x_stride, visible, row));
  simd::F32 sums{};
  for (std::size_t j = 0; j < visible; j += kLanes) {
    const simd::F32 value = simd::exp(simd::load(row + j) - top);
    simd::store(row + j, value);
    sums += value;
  }
  const simd::F32 total = simd::set(simd::sum(sums));
  for (std::size_t j = 0; j < visible; j += kLanes) {
    simd::store(row + j, simd::load(row + j) / total);
  }
  softmax_detail::scatter(row, visible, y, y_stride);
  for (std::size_t j = visible; j < size; ++j) {
    y[static_cast<std::ptrdiff_t>(j) * y_stride] = from_float<T>(0.0f);
  }
}

}  // namespace qwen3::kernels
