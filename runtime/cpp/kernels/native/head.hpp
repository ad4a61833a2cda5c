// One head of queries or keys on its way to attention: norm, then rotation, rounded once.
#pragma once

#include <cmath>
#include <cstddef>

#include "../rope.hpp"
#include "../simd.hpp"

namespace qwen3::kernels {

// What happens to a head; null pointers leave a step out.
struct HeadTransform {
  const float* norm;    // [head_dim], the weight of an rms norm
  float epsilon;        // of that norm
  const float* sine;    // [rotary_dim / 2] at the head's position
  const float* cosine;  // likewise
  std::size_t rotary_dim;
  RopePairs pairs;
};

namespace head_detail {

// As rms_norm_row: element j is summed in lane j mod kLanes.
inline void normalise(float* head, std::size_t size, const float* weight, float epsilon) {
  simd::F32 squares{};
  std::size_t j = 0;
  for (; j + simd::kLanes <= size; j += simd::kLanes) {
    const simd::F32 value = simd::load(head + j);
    squares = simd::fma(value, value, squares);
  }
  if (j < size) {
    const simd::F32 value = simd::load_first(head + j, size - j);
    squares = simd::fma(value, value, squares);
  }
  const float scale = 1.0f / std::sqrt(simd::sum(squares) / static_cast<float>(size) + epsilon);
  for (j = 0; j < size; ++j) head[j] = head[j] * weight[j] * scale;
}

}  // namespace head_detail

// y = rope(rms_norm(x)) of one head of kHeadDim contiguous elements; y may be x where their types
// are the same.
template <std::size_t kHeadDim, typename Y, typename X>
void transform_head(Y* y, const X* x, const HeadTransform& transform) {
  float head[kHeadDim];
  for (std::size_t j = 0; j < kHeadDim; ++j) head[j] = to_float(x[j]);
  if (transform.norm != nullptr) {
    head_detail::normalise(head, kHeadDim, transform.norm, transform.epsilon);
  }
  if (transform.sine != nullptr) {
    rope_head(head, head, transform.sine, transform.cosine, transform.rotary_dim / 2,
              transform.pairs);
  }
  for (std::size_t j = 0; j < kHeadDim; ++j) y[j] = from_float<Y>(head[j]);
}

}  // namespace qwen3::kernels
