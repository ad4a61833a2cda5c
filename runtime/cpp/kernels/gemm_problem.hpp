// What the ways to multiply matrices share: the problem, writing results, buffers.
#pragma once

#include <cstddef>

#include "gemm_order.hpp"
#include "scratch.hpp"

namespace qwen3::kernels {

struct GemmShape {
  std::size_t batch;
  std::size_t m;
  std::size_t n;
  std::size_t k;
};

// A batch of matrices; strides count elements, may be 0 or negative.
template <typename T>
struct Matrices {
  T* data;
  std::ptrdiff_t batch_stride;
  std::ptrdiff_t row_stride;
  std::ptrdiff_t col_stride;

  T* at(std::size_t batch, std::size_t row, std::size_t col) const {
    return data + static_cast<std::ptrdiff_t>(batch) * batch_stride +
           static_cast<std::ptrdiff_t>(row) * row_stride +
           static_cast<std::ptrdiff_t>(col) * col_stride;
  }
};

namespace gemm_detail {

// Multiplications that make it worth to wake another thread.
inline constexpr std::size_t kThreadWork = 32768;

// out[m, n] = alpha * x[m, k] @ w[n, k]^T + beta * out, once per batch.
template <typename X, typename W>
struct Problem {
  GemmShape shape;
  Matrices<const X> x;  // columns run over k
  Matrices<const W> w;
  Matrices<X> out;
  float alpha;
  float beta;

  Rows<X> x_rows(std::size_t batch) const {
    return {x.at(batch, 0, 0), x.row_stride, x.col_stride};
  }
  Rows<W> w_rows(std::size_t batch) const {
    return {w.at(batch, 0, 0), w.row_stride, w.col_stride};
  }

  // Writes `count` adjacent columns of one row.
  void write(std::size_t batch, std::size_t row, std::size_t col, const float* totals,
             std::size_t count) const {
    X* target = out.at(batch, row, col);
    std::size_t i = 0;
    for (; out.col_stride == 1 && i + kLanes <= count; i += kLanes) {
      const simd::F32 product = simd::set(alpha) * simd::load(totals + i);
      simd::store(target + i,
                  beta == 0.0f ? product : product + simd::set(beta) * simd::load(target + i));
    }
    for (; i < count; ++i) {
      X& element = target[static_cast<std::ptrdiff_t>(i) * out.col_stride];
      const float product = alpha * totals[i];
      element = from_float<X>(beta == 0.0f ? product : product + beta * to_float(element));
    }
  }
};

template <typename Step>
using ProblemOf = Problem<typename Step::RowElement, typename Step::Element>;

// Buffers of one thread; they live as long as it does.
struct Buffers {
  Scratch x;
  Scratch w;
  Scratch totals;

  static Buffers& own() {
    thread_local Buffers buffers;
    return buffers;
  }
};

// Adds the sums of a chunk to the totals, or starts them with the first chunk.
inline void accumulate(const float* sums, std::size_t count, bool first, float* totals) {
  for (std::size_t i = 0; i < count; ++i) {
    totals[i] = first ? sums[i] : totals[i] + sums[i];
  }
}

}  // namespace gemm_detail
}  // namespace qwen3::kernels
