// Keys and values in blocks of kCacheBlock tokens, found through a block table per sequence.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace qwen3::kernels {

// Tokens of a block. Attention takes keys a block at a time, so this fixes the order of its sums.
inline constexpr std::size_t kCacheBlock = 32;

// One layer's cache, of elements T, which need not be those of the activations: keys [num_blocks,
// kHeads, kHeadDim, kCacheBlock], so that the keys of a block lie side by side, and values
// [num_blocks, kHeads, kCacheBlock, kHeadDim].
template <typename T, std::size_t kHeads, std::size_t kHeadDim>
struct PagedCache {
  T* keys;
  T* values;

  // Where the keys (or values) of one head in one block start.
  static constexpr std::size_t offset(std::size_t block, std::size_t head) {
    return (block * kHeads + head) * kCacheBlock * kHeadDim;
  }

  // Puts one head of the token at `slot` of a block there.
  void write(std::size_t block, std::size_t head, std::size_t slot, const T* key,
             const T* value) const {
    T* own_keys = keys + offset(block, head) + slot;
    for (std::size_t i = 0; i < kHeadDim; ++i) own_keys[i * kCacheBlock] = key[i];
    std::memcpy(values + offset(block, head) + slot * kHeadDim, value, kHeadDim * sizeof(T));
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
