// Matrix products c = alpha * a @ b + beta * c for float, bfloat16 and binary16, summed in float.
//
// Two ways, equal to the last bit (gemm_order.hpp): with few rows the larger operand streams
// through once, read in place; with many, both operands are packed to floats in cache-sized blocks.
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>

#include "gemm_order.hpp"
#include "gemm_tiles.hpp"
#include "parallel.hpp"
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
};

namespace gemm_detail {

inline constexpr std::size_t kFewRows = 8;
inline constexpr std::size_t kFewCols = 4;
inline constexpr std::size_t kOneRowCols = 8;
// A block of rows and a chunk of k fill half of a 1 MiB second-level cache.
inline constexpr std::size_t kRowBlock = 96;
inline constexpr std::size_t kColumnBlock = 48;
static_assert(kRowBlock % kTileRows == 0 && kColumnBlock % kTileCols == 0);
// Multiplications that make it worth to wake another thread.
inline constexpr std::size_t kThreadWork = 32768;

// out[m, n] = alpha * x[m, k] @ w[n, k]^T + beta * out, once per batch.
template <typename T>
struct Problem {
  GemmShape shape;
  Matrices<const T> x;  // columns run over k
  Matrices<const T> w;
  Matrices<T> out;
  float alpha;
  float beta;

  Rows<T> x_rows(std::size_t batch) const { return rows_of(x, batch); }
  Rows<T> w_rows(std::size_t batch) const { return rows_of(w, batch); }

  // Writes `count` adjacent columns of one row.
  void write(std::size_t batch, std::size_t row, std::size_t col, const float* totals,
             std::size_t count) const {
    T* target = out.data + static_cast<std::ptrdiff_t>(batch) * out.batch_stride +
                static_cast<std::ptrdiff_t>(row) * out.row_stride +
                static_cast<std::ptrdiff_t>(col) * out.col_stride;
    for (std::size_t i = 0; i < count; ++i, target += out.col_stride) {
      const float product = alpha * totals[i];
      *target = from_float<T>(beta == 0.0f ? product : product + beta * to_float(*target));
    }
  }

 private:
  static Rows<T> rows_of(const Matrices<const T>& matrices, std::size_t batch) {
    return {matrices.data + static_cast<std::ptrdiff_t>(batch) * matrices.batch_stride,
            matrices.row_stride, matrices.col_stride};
  }
};

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

inline void accumulate(const float* sums, std::size_t count, bool first, float* totals) {
  for (std::size_t i = 0; i < count; ++i) {
    totals[i] = first ? sums[i] : totals[i] + sums[i];
  }
}

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

// --- few rows
// -------------------------------------------------------------------------------------

// Packs all rows of one batch in tiles: tile t starts at t * kTileRows * padded k.
template <typename T>
const float* pack_few_rows(const Problem<T>& problem, std::size_t batch, std::size_t tile_rows) {
  const auto [unused, m, n, k] = problem.shape;
  const std::size_t padded = round_up(k, kBlock);
  float* packed = Buffers::own().x.reserve(m * padded);
  for (std::size_t row = 0; row < m; row += tile_rows) {
    const std::size_t count = std::min(tile_rows, m - row);
    pack_panels(problem.x_rows(batch), row, count, count, 0, k, packed + row * padded);
  }
  return packed;
}

// All rows times NR columns from `col` on; the columns are contiguous in k.
template <std::size_t NR, typename T>
void few_rows_in_place(const Problem<T>& problem, std::size_t batch, std::size_t col,
                       const float* packed) {
  const auto [unused, m, n, k] = problem.shape;
  const Rows<T> w = problem.w_rows(batch);
  float totals[kFewRows * NR];
  for (std::size_t start = 0; start < k; start += kChunk) {
    const std::size_t length = std::min(kChunk, k - start);
    for (std::size_t row = 0; row < m; row += kTileRows) {
      with_rows(std::min(kTileRows, m - row), [&](auto rows) {
        float sums[rows * NR];
        const float* tile = packed + row * round_up(k, kBlock) + start * rows;
        multiply_in_place<rows, NR>(tile, w.at(col, start), w.row_stride, length, sums);
        accumulate(sums, rows * NR, start == 0, totals + row * NR);
      });
    }
  }
  for (std::size_t row = 0; row < m; ++row) {
    problem.write(batch, row, col, totals + row * NR, NR);
  }
}

// All rows times up to kLanes columns from `col` on; the columns lie side by side.
template <typename T>
void few_rows_side_by_side(const Problem<T>& problem, std::size_t batch, std::size_t col,
                           std::size_t count, const float* packed) {
  const auto [unused, m, n, k] = problem.shape;
  const Rows<T> w = problem.w_rows(batch);
  for (std::size_t row = 0; row < m; ++row) {
    float totals[kLanes];
    for (std::size_t start = 0; start < k; start += kChunk) {
      float sums[kLanes];
      simd::store(
          sums, multiply_side_by_side(packed + row * round_up(k, kBlock) + start, w.at(col, start),
                                      w.k_stride, std::min(kChunk, k - start), count));
      accumulate(sums, count, start == 0, totals);
    }
    problem.write(batch, row, col, totals, count);
  }
}

// Columns [begin, end) of one batch.
template <typename T>
void few_rows(const Problem<T>& problem, std::size_t batch, std::size_t begin, std::size_t end) {
  if (problem.w.col_stride != 1) {
    const float* packed = pack_few_rows(problem, batch, 1);
    for (std::size_t col = begin; col < end; col += kLanes) {
      few_rows_side_by_side(problem, batch, col, std::min(kLanes, end - col), packed);
    }
    return;
  }
  const float* packed = pack_few_rows(problem, batch, kTileRows);
  std::size_t col = begin;
  for (; problem.shape.m == 1 && col + kOneRowCols <= end; col += kOneRowCols) {
    few_rows_in_place<kOneRowCols>(problem, batch, col, packed);
  }
  for (; col + kFewCols <= end; col += kFewCols) {
    few_rows_in_place<kFewCols>(problem, batch, col, packed);
  }
  for (; col < end; ++col) {
    few_rows_in_place<1>(problem, batch, col, packed);
  }
}

// --- many rows
// ------------------------------------------------------------------------------------

// Position of one block of the result.
struct BlockPosition {
  std::size_t batch;
  std::size_t row;
  std::size_t col;
};

// Packs a block of rows for all of k: chunk after chunk, tile after tile.
template <typename T>
const float* pack_row_block(const Problem<T>& problem, std::size_t batch, std::size_t row,
                            std::size_t count) {
  const std::size_t k = problem.shape.k;
  const std::size_t rows = round_up(count, kTileRows);
  float* packed = Buffers::own().x.reserve(rows * round_up(k, kBlock));
  for (std::size_t start = 0; start < k; start += kChunk) {
    pack_panels(problem.x_rows(batch), row, count, kTileRows, start, std::min(kChunk, k - start),
                packed + rows * start);
  }
  return packed;
}

// Adds the products of one chunk of k to totals[row][kColumnBlock].
inline void multiply_chunk(const float* x, std::size_t rows, const float* w, std::size_t cols,
                           std::size_t length, bool first, float* totals) {
  const std::size_t padded = round_up(length, kBlock);
  for (std::size_t col = 0; col < cols; col += kTileCols) {
    for (std::size_t row = 0; row < rows; row += kTileRows) {
      float sums[kTileRows * kTileCols];
      multiply_packed<kTileRows, kTileCols>(x + row * padded, w + col * padded, padded / kLanes,
                                            sums);
      for (std::size_t r = 0; r < kTileRows; ++r) {
        accumulate(sums + r * kTileCols, kTileCols, first, totals + (row + r) * kColumnBlock + col);
      }
    }
  }
}

template <typename T>
void multiply_block(const Problem<T>& problem, const BlockPosition& at, const float* x) {
  const auto [unused, m, n, k] = problem.shape;
  const std::size_t count = std::min(kRowBlock, m - at.row);
  const std::size_t rows = round_up(count, kTileRows);
  const std::size_t cols = std::min(kColumnBlock, n - at.col);
  Buffers& buffers = Buffers::own();
  float* w = buffers.w.reserve(kColumnBlock * kChunk);
  float* totals = buffers.totals.reserve(kRowBlock * kColumnBlock);
  for (std::size_t start = 0; start < k; start += kChunk) {
    const std::size_t length = std::min(kChunk, k - start);
    pack_panels(problem.w_rows(at.batch), at.col, cols, kTileCols, start, length, w);
    multiply_chunk(x + rows * start, rows, w, cols, length, start == 0, totals);
  }
  for (std::size_t row = 0; row < count; ++row) {
    problem.write(at.batch, at.row + row, at.col, totals + row * kColumnBlock, cols);
  }
}

// --- all
// ------------------------------------------------------------------------------------------

template <typename T>
void run_few_rows(const Problem<T>& problem) {
  const auto [batch, m, n, k] = problem.shape;
  // Group borders do not reach the sums; they only keep the column loops on their widest step.
  const std::size_t width = std::max(kLanes, kOneRowCols);
  const std::size_t groups = (n + width - 1) / width;
  const std::size_t grain = kThreadWork / (m * k * width) + 1;
  parallel_for(batch * groups, grain, [&](std::size_t begin, std::size_t end) {
    while (begin < end) {
      const std::size_t current = begin / groups;
      const std::size_t stop = std::min(end, (current + 1) * groups);
      few_rows(problem, current, begin % groups * width,
               std::min(problem.shape.n, (stop - current * groups) * width));
      begin = stop;
    }
  });
}

template <typename T>
void run_many_rows(const Problem<T>& problem) {
  const auto [batch, m, n, k] = problem.shape;
  const std::size_t row_blocks = (m + kRowBlock - 1) / kRowBlock;
  const std::size_t col_blocks = (n + kColumnBlock - 1) / kColumnBlock;
  const std::size_t work = std::min(m, kRowBlock) * std::min(n, kColumnBlock) * k;
  parallel_for(batch * row_blocks * col_blocks, kThreadWork / work + 1,
               [&](std::size_t begin, std::size_t end) {
                 const float* x = nullptr;
                 for (std::size_t task = begin; task < end; ++task) {
                   const std::size_t block = task / col_blocks;
                   const BlockPosition at{block / row_blocks, block % row_blocks * kRowBlock,
                                          task % col_blocks * kColumnBlock};
                   if (x == nullptr || task % col_blocks == 0) {
                     x = pack_row_block(problem, at.batch, at.row,
                                        std::min(kRowBlock, problem.shape.m - at.row));
                   }
                   multiply_block(problem, at, x);
                 }
               });
}

// k == 0: the product is an empty sum.
template <typename T>
void run_empty_sum(const Problem<T>& problem) {
  for (std::size_t batch = 0; batch < problem.shape.batch; ++batch) {
    for (std::size_t row = 0; row < problem.shape.m; ++row) {
      for (std::size_t col = 0; col < problem.shape.n; ++col) {
        const float zero = 0.0f;
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
template <typename T>
void gemm(const GemmShape& shape, Matrices<const T> a, Matrices<const T> b, Matrices<T> c,
          float alpha, float beta) {
  if (shape.batch == 0 || shape.m == 0 || shape.n == 0) {
    return;
  }
  std::swap(b.row_stride, b.col_stride);
  gemm_detail::Problem<T> problem{shape, a, b, c, alpha, beta};
  if (shape.m > shape.n) {  // c^T = b^T @ a^T, so that the larger operand is the one streamed
    std::swap(problem.shape.m, problem.shape.n);
    std::swap(problem.x, problem.w);
    std::swap(problem.out.row_stride, problem.out.col_stride);
  }
  const bool readable_in_place = problem.w.col_stride == 1 || problem.w.row_stride == 1;
  if (shape.k == 0) {
    gemm_detail::run_empty_sum(problem);
  } else if (problem.shape.m <= gemm_detail::kFewRows && readable_in_place) {
    gemm_detail::run_few_rows(problem);
  } else {
    gemm_detail::run_many_rows(problem);
  }
}

}  // namespace qwen3::kernels
