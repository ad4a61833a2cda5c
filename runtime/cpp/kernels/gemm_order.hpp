// The one order in which every matrix product here sums over k, and the packing that follows it.
//
// A dot product is cut into chunks of kChunk elements. Within a chunk, each element belongs to one
// of kLanes partial sums, which add their products in ascending k; simd::sum then adds the lanes.
// Chunk totals are added in ascending order. All of this depends on K, the element type and the
// instruction set only, so a row of the result has the same bits whatever rows, batches or threads
// share the call.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <type_traits>

#include "simd.hpp"

namespace qwen3::kernels {

inline constexpr std::size_t kLanes = simd::kLanes;
// Elements are taken in blocks of two vectors: that is one load of 16-bit elements.
inline constexpr std::size_t kBlock = 2 * kLanes;
inline constexpr std::size_t kChunk = 512;
static_assert(kChunk % kBlock == 0);

inline std::size_t round_up(std::size_t value, std::size_t unit) {
  return (value + unit - 1) / unit * unit;
}

// Position inside its block of the element in slot `slot` of the block's two vectors. A bfloat16
// block falls apart into even and odd elements, because a mask and a shift then make floats of
// them; other types stay in order.
template <typename T>
constexpr std::size_t element_at(std::size_t slot) {
  if constexpr (std::is_same_v<T, Bf16>) {
    return slot < kLanes ? 2 * slot : 2 * (slot - kLanes) + 1;
  } else {
    return slot;
  }
}

// The two vectors of kBlock contiguous elements.
template <typename T>
void load_block(const T* source, simd::F32& first, simd::F32& second) {
  if constexpr (std::is_same_v<T, Bf16>) {
    simd::U32 pairs;
    std::memcpy(&pairs, source, sizeof pairs);
    first = reinterpret_cast<simd::F32>(pairs << 16);
    second = reinterpret_cast<simd::F32>(pairs & 0xffff0000u);
  } else {
    first = simd::load(source);
    second = simd::load(source + kLanes);
  }
}

// As load_block for a last block of `count` elements; missing ones are 0.
template <typename T>
void load_last_block(const T* source, std::size_t count, simd::F32& first, simd::F32& second) {
  T elements[kBlock] = {};
  std::memcpy(elements, source, count * sizeof(T));
  load_block(elements, first, second);
}

// A [rows, k] operand; strides count elements.
template <typename T>
struct Rows {
  const T* data;
  std::ptrdiff_t row_stride;
  std::ptrdiff_t k_stride;

  const T* at(std::size_t row, std::size_t k) const {
    return data + static_cast<std::ptrdiff_t>(row) * row_stride +
           static_cast<std::ptrdiff_t>(k) * k_stride;
  }
};

namespace gemm_detail {

// Packs `count` <= kBlock elements from k on of one row into its two vectors.
template <typename T>
void pack_row_block(const Rows<T>& source, std::size_t row, std::size_t k, std::size_t count,
                    float* first, float* second) {
  simd::F32 low;
  simd::F32 high;
  if (source.k_stride == 1) {
    load_last_block(source.at(row, k), count, low, high);
  } else {
    T elements[kBlock] = {};
    for (std::size_t i = 0; i < count; ++i) {
      elements[i] = *source.at(row, k + i);
    }
    load_block(elements, low, high);
  }
  simd::store(first, low);
  simd::store(second, high);
}

// Packs one panel of `count` <= width rows; absent rows become 0.
template <typename T>
void pack_panel(const Rows<T>& source, std::size_t row, std::size_t count, std::size_t width,
                std::size_t k, std::size_t length, float* target) {
  const std::size_t second = width * kLanes;
  for (std::size_t r = 0; r < count; ++r) {
    float* own = target + r * kLanes;
    std::size_t done = 0;
    if (source.k_stride == 1) {
      const T* elements = source.at(row + r, k);
      for (; done + kBlock <= length; done += kBlock) {
        simd::F32 low;
        simd::F32 high;
        load_block(elements + done, low, high);
        simd::store(own + done * width, low);
        simd::store(own + done * width + second, high);
      }
    }
    for (; done < length; done += kBlock) {
      float* block = own + done * width;
      pack_row_block(source, row + r, k + done, std::min(kBlock, length - done), block,
                     block + second);
    }
  }
  for (std::size_t r = count; r < width; ++r) {
    for (std::size_t done = 0; done < length; done += kBlock) {
      simd::store(target + r * kLanes + done * width, simd::F32{});
      simd::store(target + r * kLanes + done * width + second, simd::F32{});
    }
  }
}

// Packs the kLanes rows from `row` on, which lie side by side in memory (row_stride 1), for the
// whole blocks of `length`. slots[i] is where row i's first vector goes.
template <typename T>
void pack_side_by_side(const Rows<T>& source, std::size_t row, std::size_t width, std::size_t k,
                       std::size_t length, float* const* slots) {
  for (std::size_t done = 0; done + kBlock <= length; done += kBlock) {
    for (std::size_t half = 0; half < 2; ++half) {
      simd::F32 tile[kLanes];
      for (std::size_t i = 0; i < kLanes; ++i) {
        tile[i] = simd::load(source.at(row, k + done + element_at<T>(half * kLanes + i)));
      }
      simd::transpose(tile);
      for (std::size_t i = 0; i < kLanes; ++i) {
        simd::store(slots[i] + (done + half * kLanes) * width, tile[i]);
      }
    }
  }
}

}  // namespace gemm_detail

// Packs elements [k, k + length) of `count` rows from `row` on into panels of `width` rows.
//
// A panel is [vector of k][width][lane], zero padded to whole blocks and to `width` rows; `target`
// holds round_up(count, width) * round_up(length, kBlock) floats.
template <typename T>
void pack_panels(const Rows<T>& source, std::size_t row, std::size_t count, std::size_t width,
                 std::size_t k, std::size_t length, float* target) {
  const std::size_t panel_size = width * round_up(length, kBlock);
  std::size_t ready = 0;    // rows whose whole blocks are packed
  std::size_t ready_k = 0;  // and how far
  if (source.row_stride == 1 && source.k_stride != 1) {
    ready_k = length / kBlock * kBlock;
    for (; ready + kLanes <= count; ready += kLanes) {
      float* slots[kLanes];
      for (std::size_t i = 0; i < kLanes; ++i) {
        const std::size_t r = ready + i;
        slots[i] = target + r / width * panel_size + r % width * kLanes;
      }
      gemm_detail::pack_side_by_side(source, row + ready, width, k, length, slots);
    }
  }
  // What is left: everything, or the last rows and the last block of k.
  for (std::size_t panel = 0; panel * width < count; ++panel) {
    const std::size_t first = panel * width;
    const std::size_t present = std::min(width, count - first);
    const std::size_t start = first + present <= ready ? ready_k : 0;
    gemm_detail::pack_panel(source, row + first, present, width, k + start, length - start,
                            target + panel * panel_size + start * width);
  }
}

}  // namespace qwen3::kernels
