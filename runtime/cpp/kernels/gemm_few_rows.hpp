// Matrix products with few rows: the larger operand streams through once, read in place.
#pragma once

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "gemm_problem.hpp"
#include "gemm_tiles.hpp"
#include "parallel.hpp"

namespace qwen3::kernels::gemm_detail {

inline constexpr std::size_t kFewRows = 16;
inline constexpr std::size_t kFewCols = 4;
inline constexpr std::size_t kOneRowCols = 8;

// Calls body(std::integral_constant<std::size_t, count>) for 1 <= count <= kTileRows.
template <typename Body>
void with_rows(std::size_t count, const Body& body) {
  switch (count) {
    case 1:
      return body(std::integral_constant<std::size_t, 1>());
    case 2:
      return body(std::integral_constant<std::size_t, 2>());
    case 3:
      return body(std::integral_constant<std::size_t, 3>());
    default:
      return body(std::integral_constant<std::size_t, kTileRows>());
  }
}

// The rows of one batch, packed in panels of `width` rows; the last one may be narrower.
template <typename Step>
struct PackedRows {
  const Lane* data;
  std::size_t width;
  std::size_t count;
  std::size_t row_lanes;

  std::size_t width_at(std::size_t row) const { return std::min(width, count - row); }
  // Where the block that starts with element k is in the panel that begins with `row`.
  const Lane* panel(std::size_t row, std::size_t k) const {
    return data + row * row_lanes + packed_lanes<Step>(k) * width_at(row);
  }
};

template <typename Step>
PackedRows<Step> pack_few_rows(const ProblemOf<Step>& problem, std::size_t batch,
                               std::size_t width) {
  const std::size_t count = problem.shape.m;
  const std::size_t row_lanes = packed_lanes<Step>(problem.shape.k);
  Lane* packed = Buffers::own().x.template reserve<Lane>(count * row_lanes);
  const PackedRows<Step> rows{packed, width, count, row_lanes};
  for (std::size_t row = 0; row < count; row += width) {
    const std::size_t own = rows.width_at(row);
    pack_panels<Step>(problem.x_rows(batch), row, own, own, 0, problem.shape.k,
                      packed + row * row_lanes);
  }
  return rows;
}

// How far the NR columns after those from `col` on are, or 0 where there are not as many.
template <std::size_t NR, typename X, typename W>
std::ptrdiff_t distance_to_next(const Problem<X, W>& problem, std::size_t col) {
  return col + 2 * NR <= problem.shape.n ? static_cast<std::ptrdiff_t>(NR) * problem.w.row_stride
                                         : 0;
}

// All rows times NR columns from `col` on, columns contiguous in k.
template <typename Step, std::size_t NR>
void multiply_columns(const ProblemOf<Step>& problem, std::size_t batch, std::size_t col,
                      const PackedRows<Step>& x) {
  const std::size_t k = problem.shape.k;
  const auto w = problem.w_rows(batch);
  const std::ptrdiff_t ahead = distance_to_next<NR>(problem, col);
  float totals[kFewRows * NR];
  for (std::size_t start = 0; start < k; start += Step::kChunk) {
    const std::size_t length = std::min(Step::kChunk, k - start);
    for (std::size_t row = 0; row < x.count; row += x.width) {
      with_rows(x.width_at(row), [&](auto rows) {
        float sums[rows * NR];
        multiply_in_place<Step, rows, NR>(x.panel(row, start), rows, w.at(col, start), w.row_stride,
                                          ahead, length, sums);
        accumulate(sums, rows * NR, start == 0, totals + row * NR);
      });
    }
  }
  for (std::size_t row = 0; row < x.count; ++row) {
    problem.write(batch, row, col, totals + row * NR, NR);
  }
}

// The only row times NR columns from `col` on, columns contiguous in k.
template <typename Step, std::size_t NR>
void multiply_one_row(const ProblemOf<Step>& problem, std::size_t batch, std::size_t col,
                      const PackedRows<Step>& x) {
  const std::size_t k = problem.shape.k;
  const auto w = problem.w_rows(batch);
  const std::ptrdiff_t ahead = distance_to_next<NR>(problem, col);
  float totals[NR];
  for (std::size_t start = 0; start < k; start += Step::kChunk) {
    float sums[NR];
    multiply_in_place<Step, 1, NR>(x.panel(0, start), 1, w.at(col, start), w.row_stride, ahead,
                                   std::min(Step::kChunk, k - start), sums);
    accumulate(sums, NR, start == 0, totals);
  }
  problem.write(batch, 0, col, totals, NR);
}

// All rows times one column; for the last columns.
template <typename Step>
void multiply_column(const ProblemOf<Step>& problem, std::size_t batch, std::size_t col,
                     const PackedRows<Step>& x) {
  const std::size_t k = problem.shape.k;
  const auto w = problem.w_rows(batch);
  for (std::size_t row = 0; row < x.count; ++row) {
    const std::size_t first = row / x.width * x.width;
    float total = 0.0f;
    for (std::size_t start = 0; start < k; start += Step::kChunk) {
      float sum;
      multiply_in_place<Step, 1, 1>(x.panel(first, start) + (row - first) * kLanes,
                                    x.width_at(first), w.at(col, start), w.row_stride, 0,
                                    std::min(Step::kChunk, k - start), &sum);
      accumulate(&sum, 1, start == 0, &total);
    }
    problem.write(batch, row, col, &total, 1);
  }
}

// All rows times up to kLanes columns from `col` on, which lie side by side.
template <typename Step>
void multiply_adjacent_columns(const ProblemOf<Step>& problem, std::size_t batch, std::size_t col,
                               std::size_t count, const PackedRows<Step>& x) {
  const std::size_t k = problem.shape.k;
  const auto w = problem.w_rows(batch);
  for (std::size_t row = 0; row < x.count; ++row) {
    float totals[kLanes];
    for (std::size_t start = 0; start < k; start += Step::kChunk) {
      float sums[kLanes];
      simd::store(sums,
                  multiply_side_by_side<Step>(x.panel(row, start), w.at(col, start), w.k_stride,
                                              std::min(Step::kChunk, k - start), count));
      accumulate(sums, count, start == 0, totals);
    }
    problem.write(batch, row, col, totals, count);
  }
}

// All rows times the columns [begin, end) of one batch.
template <typename Step>
void multiply_column_range(const ProblemOf<Step>& problem, std::size_t batch, std::size_t begin,
                           std::size_t end) {
  if (problem.w.col_stride != 1) {
    const auto x = pack_few_rows<Step>(problem, batch, 1);
    for (std::size_t col = begin; col < end; col += kLanes) {
      multiply_adjacent_columns<Step>(problem, batch, col, std::min(kLanes, end - col), x);
    }
    return;
  }
  const auto x = pack_few_rows<Step>(problem, batch, kTileRows);
  std::size_t col = begin;
  for (; x.count == 1 && col + kOneRowCols <= end; col += kOneRowCols) {
    multiply_one_row<Step, kOneRowCols>(problem, batch, col, x);
  }
  for (; col + kFewCols <= end; col += kFewCols) {
    multiply_columns<Step, kFewCols>(problem, batch, col, x);
  }
  for (; col < end; ++col) {
    multiply_column<Step>(problem, batch, col, x);
  }
}

// Needs w's columns contiguous in k or side by side, and at most kFewRows rows.
template <typename Step>
void run_few_rows(const ProblemOf<Step>& problem) {
  const auto [batch, m, n, k] = problem.shape;
  // Threads share out groups of columns as wide as the widest step.
  const std::size_t width = std::max(kLanes, kOneRowCols);
  const std::size_t groups = (n + width - 1) / width;
  const std::size_t grain = kThreadWork / (m * k * width) + 1;
  parallel_for(batch * groups, grain, [&](std::size_t begin, std::size_t end) {
    while (begin < end) {
      const std::size_t current = begin / groups;
      const std::size_t stop = std::min(end, (current + 1) * groups);
      multiply_column_range<Step>(problem, current, begin % groups * width,
                                  std::min(problem.shape.n, (stop - current * groups) * width));
      begin = stop;
    }
  });
}

}  // namespace qwen3::kernels::gemm_detail
