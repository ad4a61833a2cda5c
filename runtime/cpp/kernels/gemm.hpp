// Matrix products c = alpha * a @ b + beta * c for float, bfloat16 and binary16, summed in float; b
// may be in 16 bits where a and c are float.
//
// Two ways, equal to the last bit (gemm_order.hpp): gemm_few_rows.hpp and gemm_many_rows.hpp.
#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>

#include "gemm_few_rows.hpp"
#include "gemm_many_rows.hpp"
#include "gemm_problem.hpp"

namespace qwen3::kernels {

namespace gemm_detail {

// k == 0: the product is an empty sum.
template <typename X, typename W>
void run_empty_sum(const Problem<X, W>& problem) {
  const float zero = 0.0f;
  for (std::size_t batch = 0; batch < problem.shape.batch; ++batch) {
    for (std::size_t row = 0; row < problem.shape.m; ++row) {
      for (std::size_t col = 0; col < problem.shape.n; ++col) {
        problem.write(batch, row, col, &zero, 1);
      }
    }
  }
}

}  // namespace gemm_detail

// c = alpha * a @ b + beta * c per batch; beta 0 never reads c.
//
// Args:
//   a: [batch, m, k]; b: [batch, k, n]; c: [batch, m, n], which overlaps neither.
template <typename X, typename W = X, typename Step = typename StepFor<W, X>::Type>
void gemm(const GemmShape& shape, Matrices<const X> a, Matrices<const W> b, Matrices<X> c,
          float alpha, float beta) {
  if (shape.batch == 0 || shape.m == 0 || shape.n == 0) {
    return;
  }
  std::swap(b.row_stride, b.col_stride);
  gemm_detail::Problem<X, W> problem{shape, a, b, c, alpha, beta};
  if constexpr (std::is_same_v<X, W>) {
    if (shape.m > shape.n) {  // c^T = b^T @ a^T, so that the larger operand is the one streamed
      std::swap(problem.shape.m, problem.shape.n);
      std::swap(problem.x, problem.w);
      std::swap(problem.out.row_stride, problem.out.col_stride);
    }
  }
  const bool readable_in_place = problem.w.col_stride == 1 || problem.w.row_stride == 1;
  if (shape.k == 0) {
    gemm_detail::run_empty_sum(problem);
  } else if (problem.shape.m <= gemm_detail::kFewRows && readable_in_place) {
    gemm_detail::run_few_rows<Step>(problem);
  } else {
    gemm_detail::run_many_rows<Step>(problem);
  }
}

}  // namespace qwen3::kernels
