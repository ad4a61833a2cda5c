// Keys and values in blocks of kCacheBlock tokens, found through a block table per sequence.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qwen3::kernels {

// Tokens of a block. Attention takes keys a block at a time, so this fixes the order of its sums.
inline constexpr std::size_t kCacheBlock = 32;

// One layer's cache: keys and values [num_blocks, kHeads, kCacheBlock, kHeadDim].
template <typename T, std::size_t kHeads, std::size_t kHeadDim>
struct PagedCache {
  T* keys;
  T* values;

  // Where the keys (or values) of one head in one block start.
  static constexpr std::size_t offset(std::size_t block, std::size_t head) {
    return (block * kHeads + head) * kCacheBlock * kHeadDim;
  }
};

// A sequence's share of a step: rows [first_row, first_row + num_rows) of the packed tokens stand
// at positions [start, start + num_rows).
struct SequenceRows {
  const std::int32_t* blocks;  // the sequence's row of the block table
  std::size_t first_row;
  std::size_t num_rows;
  std::size_t start;
};

}  // namespace qwen3::kernels
