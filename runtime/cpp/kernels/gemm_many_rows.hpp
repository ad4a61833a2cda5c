// Matrix products with many rows: both operands are packed in cache-sized blocks.
#pragma once

#include <algorithm>
#include <cstddef>

#include "gemm_problem.hpp"
#include "gemm_tiles.hpp"
#include "parallel.hpp"

namespace qwen3::kernels::gemm_detail {

// One chunk of k of a block of rows and of a block of columns fill two thirds of a 1 MiB
// second-level cache; a panel of columns and a tile of rows stay in the first level. Columns are
// packed anew for every block of rows, so these are many.
inline constexpr std::size_t kRowBlock = 256;
inline constexpr std::size_t kColumnBlock = 48;
static_assert(kColumnBlock % kTileCols == 0);

// Rows of a block where `m` rows make as few and as equal ones as they can.
inline std::size_t rows_per_block(std::size_t m) {
  const std::size_t blocks = (m + kRowBlock - 1) / kRowBlock;
  return round_up((m + blocks - 1) / blocks, kTileRows);
}

// Position of one block of the result, and how many rows it has.
struct Block {
  std::size_t batch;
  std::size_t row;
  std::size_t col;
  std::size_t rows;
};

// Asks for memory that will be packed next, a little with each tile, so that it arrives while the
// tiles are computed.
class Prefetcher {
 public:
  Prefetcher() = default;

  // Elements [k, k + length) of `count` rows from `row` on, spread over `steps` calls of step().
  template <typename T>
  Prefetcher(const Rows<T>& source, std::size_t row, std::size_t count, std::size_t k,
             std::size_t length, std::size_t steps) {
    if (source.k_stride != 1 || count == 0 || length == 0) {
      return;
    }
    row_ = reinterpret_cast<const char*>(source.at(row, k));
    row_stride_ = source.row_stride * static_cast<std::ptrdiff_t>(sizeof(T));
    row_bytes_ = length * sizeof(T);
    rows_left_ = count;
    lines_per_step_ = (row_bytes_ / kLine + 1) * count / steps + 1;
  }

  void step() {
    for (std::size_t line = 0; line < lines_per_step_ && rows_left_ > 0; ++line) {
      __builtin_prefetch(row_ + done_, 0, 2);
      done_ += kLine;
      if (done_ >= row_bytes_) {
        done_ = 0;
        row_ += row_stride_;
        --rows_left_;
      }
    }
  }

 private:
  static constexpr std::size_t kLine = 64;

  const char* row_ = nullptr;
  std::ptrdiff_t row_stride_ = 0;
  std::size_t row_bytes_ = 0;
  std::size_t rows_left_ = 0;
  std::size_t lines_per_step_ = 0;
  std::size_t done_ = 0;
};

// Packs a block of rows for all of k: chunk after chunk, tile after tile.
template <typename Step>
const Lane* pack_row_block(const ProblemOf<Step>& problem, const Block& at) {
  const std::size_t k = problem.shape.k;
  const std::size_t rows = round_up(at.rows, kTileRows);
  Lane* packed = Buffers::own().x.template reserve<Lane>(rows * packed_lanes<Step>(k));
  for (std::size_t start = 0; start < k; start += Step::kChunk) {
    pack_panels<Step>(problem.x_rows(at.batch), at.row, at.rows, kTileRows, start,
                      std::min(Step::kChunk, k - start), packed + rows * packed_lanes<Step>(start));
  }
  return packed;
}

// The sums of one tile.
using Tile = float[kTileRows * kTileCols];

// Adds the products of one packed chunk of k to a block's tiles, which follow each other down the
// rows.
template <typename Step>
void multiply_chunk(const Lane* x, std::size_t rows, const Lane* w, std::size_t cols,
                    std::size_t row_lanes, bool first, Prefetcher next, Tile* tiles) {
  for (std::size_t col = 0; col < cols; col += kTileCols) {
    for (std::size_t row = 0; row < rows; row += kTileRows) {
      Tile sums;
      multiply_packed<Step, kTileRows, kTileCols>(x + row * row_lanes, w + col * row_lanes,
                                                  row_lanes / kLanes, sums);
      next.step();
      accumulate(sums, kTileRows * kTileCols, first, *tiles++);
    }
  }
}

// Writes a finished block; a column of tiles is `tile_rows` tiles.
template <typename X, typename W>
void write_block(const Problem<X, W>& problem, const Block& at, std::size_t cols,
                 std::size_t tile_rows, const Tile* tiles) {
  for (std::size_t row = 0; row < at.rows; ++row) {
    float totals[kColumnBlock];
    for (std::size_t col = 0; col < cols; col += kTileCols) {
      const Tile& tile = tiles[col / kTileCols * tile_rows + row / kTileRows];
      std::copy_n(tile + row % kTileRows * kTileCols, kTileCols, totals + col);
    }
    problem.write(at.batch, at.row + row, at.col, totals, cols);
  }
}

// What is to be packed after the chunk of k at `start` of this block: the next chunk, or the first
// one of the block to the right.
template <typename Step>
Prefetcher after(const ProblemOf<Step>& problem, const Block& at, std::size_t start,
                 std::size_t tiles) {
  const auto [unused, m, n, k] = problem.shape;
  const bool last = start + Step::kChunk >= k;
  const std::size_t col = std::min(n, last ? at.col + kColumnBlock : at.col);
  const std::size_t next = last ? 0 : start + Step::kChunk;
  return {problem.w_rows(at.batch),         col,  std::min(kColumnBlock, n - col), next,
          std::min(Step::kChunk, k - next), tiles};
}

template <typename Step>
void multiply_block(const ProblemOf<Step>& problem, const Block& at, const Lane* x) {
  const auto [unused, m, n, k] = problem.shape;
  const std::size_t rows = round_up(at.rows, kTileRows);
  const std::size_t cols = std::min(kColumnBlock, n - at.col);
  const std::size_t count = rows / kTileRows * (round_up(cols, kTileCols) / kTileCols);
  Buffers& buffers = Buffers::own();
  Lane* w = buffers.w.template reserve<Lane>(kColumnBlock * packed_lanes<Step>(Step::kChunk));
  Tile* tiles = buffers.totals.template reserve<Tile>(count);
  for (std::size_t start = 0; start < k; start += Step::kChunk) {
    const std::size_t length = std::min(Step::kChunk, k - start);
    pack_panels<Step>(problem.w_rows(at.batch), at.col, cols, kTileCols, start, length, w);
    multiply_chunk<Step>(x + rows * packed_lanes<Step>(start), rows, w, cols,
                         packed_lanes<Step>(length), start == 0,
                         after<Step>(problem, at, start, count), tiles);
  }
  write_block(problem, at, cols, rows / kTileRows, tiles);
}

// Takes any strides.
template <typename Step>
void run_many_rows(const ProblemOf<Step>& problem) {
  const auto [batch, m, n, k] = problem.shape;
  const std::size_t block_rows = rows_per_block(m);
  const std::size_t row_blocks = (m + block_rows - 1) / block_rows;
  const std::size_t col_blocks = (n + kColumnBlock - 1) / kColumnBlock;
  const std::size_t work = block_rows * std::min(n, kColumnBlock) * k;
  parallel_for(batch * row_blocks * col_blocks, kThreadWork / work + 1,
               [&](std::size_t begin, std::size_t end) {
                 const Lane* x = nullptr;
                 for (std::size_t task = begin; task < end; ++task) {
                   const std::size_t block = task / col_blocks;
                   const std::size_t row = block % row_blocks * block_rows;
                   const Block at{block / row_blocks, row, task % col_blocks * kColumnBlock,
                                  std::min(block_rows, problem.shape.m - row)};
                   if (x == nullptr || task % col_blocks == 0) {
                     x = pack_row_block<Step>(problem, at);
                   }
                   multiply_block<Step>(problem, at, x);
                 }
               });
}

}  // namespace qwen3::kernels::gemm_detail
