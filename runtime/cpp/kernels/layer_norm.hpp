// Layer norm of one row. Both sums run over lanes as in rms_norm.hpp, so they depend on the row
// alone.
#pragma once

#include <cmath>
#include <cstddef>

#include "rms_norm.hpp"

namespace qwen3::kernels {

// y = (x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon) * w + b over `size` contiguous
// elements; y may be x, b may be null.
template <typename T, typename W>
void layer_norm_row(T* y, const T* x, const W* w, const W* b, std::size_t size, float epsilon) {
  namespace detail = norm_detail;
  simd::F32 sums{};
  detail::for_each_vector(
      size, [&](std::size_t start, std::size_t count) { sums += detail::load(x + start, count); });
  const simd::F32 mean = simd::set(simd::sum(sums) / static_cast<float>(size));
  simd::F32 squares{};
  detail::for_each_vector(size, [&](std::size_t start, std::size_t count) {
    if (count == detail::kLanes) {
      const simd::F32 centred = detail::load(x + start, count) - mean;
      squares = simd::fma(centred, centred, squares);
      return;
    }
    simd::F32 centred{};  // lanes beyond the row add nothing
    for (std::size_t i = 0; i < count; ++i) centred[i] = to_float(x[start + i]) - mean[i];
    squares = simd::fma(centred, centred, squares);
  });
  const simd::F32 scale = simd::set(detail::inverse_rms(simd::sum(squares), size, epsilon));
  detail::for_each_vector(size, [&](std::size_t start, std::size_t count) {
    simd::F32 normed = (detail::load(x + start, count) - mean) * scale;
    normed *= detail::load(w + start, count);
    if (b != nullptr) normed += detail::load(b + start, count);
    detail::store(y + start, normed, count);
  });
}

}  // namespace qwen3::kernels
