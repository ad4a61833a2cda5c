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
struct PackedRows {
  const float* data;
  std::size_t width;
  std::size_t count;
  std::size_t padded_k;

  std::size_t width_at(std::size_t row) const { return std::min(width, count - row); }
  // Where element k of the panel starts that begins with `row`.
  const float* panel(std::size_t row, std::size_t k) const {
    return data + row * padded_k + k * width_at(row);
  }
};

template <typename T>
PackedRows pack_few_rows(const Problem<T>& problem, std::size_t batch, std::size_t width) {
  const std::size_t count = problem.shape.m;
  const std::size_t padded_k = round_up(problem.shape.k, kBlock);
  float* packed = Buffers::own().x.reserve(count * padded_k);
  const PackedRows rows{packed, width, count, padded_k};
  for (std::size_t row = 0; row < count; row += width) {
    const std::size_t own = rows.width_at(row);
    pack_panels(problem.x_rows(batch), row, own, own, 0, problem.shape.k, packed + row * padded_k);
  }
  return rows;
}

// All rows times NR columns from `col` on, columns contiguous in k.
template <std::size_t NR, typename T>
void multiply_columns(const Problem<T>& problem, std::size_t batch, std::size_t col,
                      const PackedRows& x) {
  const std::size_t k = problem.shape.k;
  const Rows<T> w = problem.w_rows(batch);
  float totals[kFewRows * NR];
  for (std::size_t start = 0; start < k; start += kChunk) {
    const std::size_t length = std::min(kChunk, k - start);
    for (std::size_t row = 0; row < x.count; row += x.width) {
      with_rows(x.width_at(row), [&](auto rows) {
        float sums[rows * NR];
        multiply_in_place<rows, NR>(x.panel(row, start), rows, w.at(col, start), w.row_stride,
                                    length, sums);
        accumulate(sums, rows * NR, start == 0, totals + row * NR);
      });
    }
  }
  for (std::size_t row = 0; row < x.count; ++row) {
    problem.write(batch, row, col, totals + row * NR, NR);
  }
}

// The only row times NR columns from `col` on, columns contiguous in k.
template <std::size_t NR, typename T>
void multiply_one_row(const Problem<T>& problem, std::size_t batch, std::size_t col,
                      const PackedRows& x) {
  const std::size_t k = problem.shape.k;
  const Rows<T> w = problem.w_rows(batch);
  float totals[NR];
  for (std::size_t start = 0; start < k; start += kChunk) {
    float sums[NR];
    multiply_in_place<1, NR>(x.panel(0, start), 1, w.at(col, start), w.row_stride,
                             std::min(kChunk, k - start), sums);
    accumulate(sums, NR, start == 0, totals);
  }
  problem.write(batch, 0, col, totals, NR);
}

// All rows times one column; for the last columns.
template <typename T>
void multiply_column(const Problem<T>& problem, std::size_t batch, std::size_t col,
                     const PackedRows& x) {
  const std::size_t k = problem.shape.k;
  const Rows<T> w = problem.w_rows(batch);
  for (std::size_t row = 0; row < x.count; ++row) {
    const std::size_t first = row / x.width * x.width;
    float total = 0.0f;
    for (std::size_t start = 0; start < k; start += kChunk) {
      float sum;
      multiply_in_place<1, 1>(x.panel(first, start) + (row - first) * kLanes, x.width_at(first),
                              w.at(col, start), w.row_stride, std::min(kChunk, k - start), &sum);
      accumulate(&sum, 1, start == 0, &total);
    }
    problem.write(batch, row, col, &total, 1);
  }
}

// All rows times up to kLanes columns from `col` on, which lie side by side.
template <typename T>
void multiply_adjacent_columns(const Problem<T>& problem, std::size_t batch, std::size_t col,
                               std::size_t count, const PackedRows& x) {
  const std::size_t k = problem.shape.k;
  const Rows<T> w = problem.w_rows(batch);
  for (std::size_t row = 0; row < x.count; ++row) {
    float totals[kLanes];
    for (std::size_t start = 0; start < k; start += kChunk) {
      float sums[kLanes];
      simd::store(sums, multiply_side_by_side(x.panel(row, start), w.at(col, start), w.k_stride,
                                              std::min(kChunk, k - start), count));
      accumulate(sums, count, start == 0, totals);
    }
    problem.write(batch, row, col, totals, count);
  }
}

// All rows times the columns [begin, end) of one batch.
template <typename T>
void multiply_column_range(const Problem<T>& problem, std::size_t batch, std::size_t begin,
                           std::size_t end) {
  if (problem.w.col_stride != 1) {
    const PackedRows x = pack_few_rows(problem, batch, 1);
    for (std::size_t col = begin; col < end; col += kLanes) {
      multiply_adjacent_columns(problem, batch, col, std::min(kLanes, end - col), x);
    }
    return;
  }
  const PackedRows x = pack_few_rows(problem, batch, kTileRows);
  std::size_t col = begin;
  for (; x.count == 1 && col + kOneRowCols <= end; col += kOneRowCols) {
    multiply_one_row<kOneRowCols>(problem, batch, col, x);
  }
  for (; col + kFewCols <= end; col += kFewCols) {
    multiply_columns<kFewCols>(problem, batch, col, x);
  }
  for (; col < end; ++col) {
    multiply_column(problem, batch, col, x);
  }
}

// Needs w's columns contiguous in k or side by side, and at most kFewRows rows.
template <typename T>
void run_few_rows(const Problem<T>& problem) {
  const auto [batch, m, n, k] = problem.shape;
  // Threads share out groups of columns as wide as the widest step.
  const std::size_t width = std::max(kLanes, kOneRowCols);
  const std::size_t groups = (n + width - 1) / width;
  const std::size_t grain = kThreadWork / (m * k * width) + 1;
  parallel_for(batch * groups, grain, [&](std::size_t begin, std::size_t end) {
    while (begin < end) {
      const std::size_t current = begin / groups;
      const std::size_t stop = std::min(end, (current + 1) * groups);
      multiply_column_range(problem, current, begin % groups * width,
                            std::min(problem.shape.n, (stop - current * groups) * width));
      begin = stop;
    }
  });
}

}  // namespace qwen3::kernels::gemm_detail
