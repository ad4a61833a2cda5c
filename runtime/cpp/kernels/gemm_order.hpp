// The one order in which every matrix product here sums over k, and the packing that follows it.
//
// A dot product is cut into chunks of Step::kChunk elements. Within a chunk, each element belongs
// to one of kLanes partial sums, which take their products in ascending k; simd::sum then adds the
// lanes. Chunk totals are added in ascending order. All of this depends on K, the element types and
// the instruction set only, so a row of the result has the same bits whatever rows, batches or
// threads share the call.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "gemm_steps.hpp"

namespace qwen3::kernels {

inline std::size_t round_up(std::size_t value, std::size_t unit) {
  return (value + unit - 1) / unit * unit;
}

// Lanes that `length` elements of one row are packed into.
template <typename Step>
std::size_t packed_lanes(std::size_t length) {
  static_assert(Step::kChunk % Step::kBlock == 0);
  return (length + Step::kBlock - 1) / Step::kBlock * (Step::kVectors * kLanes);
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

// As Step::load for a last block of `count` elements; missing ones are 0.
template <typename Step, typename T>
void load_last(const T* source, std::size_t count, simd::U32* vectors) {
  T elements[Step::kBlock] = {};
  std::memcpy(elements, source, count * sizeof *elements);
  Step::load(elements, vectors);
}

// Stores a block's vectors where they belong in a panel of `width` rows.
template <typename Step>
void store_block(const simd::U32* vectors, std::size_t width, Lane* target) {
  for (std::size_t v = 0; v < Step::kVectors; ++v) {
    simd::store(target + v * width * kLanes, vectors[v]);
  }
}

// Packs `count` <= Step::kBlock elements from k on of one row.
template <typename Step, typename T>
void pack_last(const Rows<T>& source, std::size_t row, std::size_t k, std::size_t count,
               std::size_t width, Lane* target) {
  simd::U32 vectors[Step::kVectors];
  if (source.k_stride == 1) {
    load_last<Step>(source.at(row, k), count, vectors);
  } else {
    T elements[Step::kBlock];
    for (std::size_t i = 0; i < count; ++i) {
      elements[i] = *source.at(row, k + i);
    }
    load_last<Step>(elements, count, vectors);
  }
  store_block<Step>(vectors, width, target);
}

// Packs one panel of `count` <= width rows; absent rows become 0.
template <typename Step, typename T>
void pack_panel(const Rows<T>& source, std::size_t row, std::size_t count, std::size_t width,
                std::size_t k, std::size_t length, Lane* target) {
  const std::size_t block_size = Step::kVectors * width * kLanes;
  for (std::size_t r = 0; r < count; ++r) {
    Lane* own = target + r * kLanes;
    std::size_t done = 0;
    if (source.k_stride == 1) {
      const auto* elements = source.at(row + r, k);
      for (; done + Step::kBlock <= length; done += Step::kBlock, own += block_size) {
        simd::U32 vectors[Step::kVectors];
        Step::load(elements + done, vectors);
        store_block<Step>(vectors, width, own);
      }
    }
    for (; done < length; done += Step::kBlock, own += block_size) {
      pack_last<Step>(source, row + r, k + done, std::min(Step::kBlock, length - done), width, own);
    }
  }
  const simd::U32 zeros[Step::kVectors] = {};
  for (std::size_t r = count; r < width; ++r) {
    Lane* own = target + r * kLanes;
    for (std::size_t done = 0; done < length; done += Step::kBlock, own += block_size) {
      store_block<Step>(zeros, width, own);
    }
  }
}

// Packs the kLanes rows from `row` on, which lie side by side in memory (row_stride 1), for the
// whole blocks of `length`. slots[i] is where row i's first vector goes.
template <typename Step, typename T>
void pack_side_by_side(const Rows<T>& source, std::size_t row, std::size_t width, std::size_t k,
                       std::size_t length, Lane* const* slots) {
  for (std::size_t done = 0; done + Step::kBlock <= length; done += Step::kBlock) {
    for (std::size_t v = 0; v < Step::kVectors; ++v) {
      simd::F32 tile[kLanes];
      for (std::size_t i = 0; i < kLanes; ++i) {
        tile[i] = reinterpret_cast<simd::F32>(
            Step::across(source.at(row, k + done), source.k_stride, v * kLanes + i));
      }
      simd::transpose(tile);
      const std::size_t offset = (packed_lanes<Step>(done) + v * kLanes) * width;
      for (std::size_t i = 0; i < kLanes; ++i) {
        simd::store(slots[i] + offset, reinterpret_cast<simd::U32>(tile[i]));
      }
    }
  }
}

}  // namespace gemm_detail

// Packs elements [k, k + length) of `count` rows from `row` on into panels of `width` rows.
//
// A panel is [vector of k][width][lane], zero padded to whole blocks and to `width` rows; `target`
// holds round_up(count, width) * packed_lanes<Step>(length) lanes.
template <typename Step, typename T>
void pack_panels(const Rows<T>& source, std::size_t row, std::size_t count, std::size_t width,
                 std::size_t k, std::size_t length, Lane* target) {
  const std::size_t panel_size = width * packed_lanes<Step>(length);
  std::size_t ready = 0;    // rows whose whole blocks are packed
  std::size_t ready_k = 0;  // and how far
  if (source.row_stride == 1 && source.k_stride != 1) {
    ready_k = length / Step::kBlock * Step::kBlock;
    for (; ready + kLanes <= count; ready += kLanes) {
      Lane* slots[kLanes];
      for (std::size_t i = 0; i < kLanes; ++i) {
        const std::size_t r = ready + i;
        slots[i] = target + r / width * panel_size + r % width * kLanes;
      }
      gemm_detail::pack_side_by_side<Step>(source, row + ready, width, k, length, slots);
    }
  }
  // What is left: everything, or the last rows and the last block of k.
  for (std::size_t panel = 0; panel * width < count; ++panel) {
    const std::size_t first = panel * width;
    const std::size_t present = std::min(width, count - first);
    const std::size_t start = first + present <= ready ? ready_k : 0;
    gemm_detail::pack_panel<Step>(source, row + first, present, width, k + start, length - start,
                                  target + panel * panel_size + packed_lanes<Step>(start) * width);
  }
}

}  // namespace qwen3::kernels
