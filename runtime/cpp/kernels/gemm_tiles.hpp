// The innermost loops of a matrix product: a few rows times a few columns over one chunk of k.
#pragma once

#include <algorithm>
#include <cstddef>

#include "gemm_order.hpp"

namespace qwen3::kernels::gemm_detail {

// A tile of kTileRows x kTileCols sums, its rows and one column fill the register file.
#if defined(QWEN3_SIMD_AVX512)
inline constexpr std::size_t kTileRows = 4;
inline constexpr std::size_t kTileCols = 6;
#else
inline constexpr std::size_t kTileRows = 3;
inline constexpr std::size_t kTileCols = 4;
#endif

// Dot products of a packed panel of MR rows with a packed panel of NR columns over `vectors`
// vectors of k; totals[r * NR + c].
template <typename Step, std::size_t MR, std::size_t NR>
void multiply_packed(const Lane* x, const Lane* w, std::size_t vectors, float* totals) {
  simd::F32 acc[MR * NR] = {};
  for (std::size_t v = 0; v < vectors; ++v) {
    simd::U32 rows[MR];
#pragma GCC unroll 8
    for (std::size_t r = 0; r < MR; ++r) {
      rows[r] = simd::load(x + (v * MR + r) * kLanes);
    }
#pragma GCC unroll 8
    for (std::size_t c = 0; c < NR; ++c) {
      const simd::U32 column = simd::load(w + (v * NR + c) * kLanes);
#pragma GCC unroll 8
      for (std::size_t r = 0; r < MR; ++r) {
        acc[r * NR + c] = Step::multiply_add(rows[r], column, acc[r * NR + c]);
      }
    }
  }
  simd::sums<MR * NR>(acc, totals);
}

// As multiply_packed, with the columns read in place: column c is `length` contiguous elements at
// w + c * stride.
//
// Args:
//   x: First of MR rows in a packed panel `width` rows wide.
//   ahead: Distance of the elements to ask memory for meanwhile, 0 where there are none: those of
//     the columns to come, which no hardware foresees.
template <typename Step, std::size_t MR, std::size_t NR>
void multiply_in_place(const Lane* x, std::size_t width, const typename Step::Element* w,
                       std::ptrdiff_t stride, std::ptrdiff_t ahead, std::size_t length,
                       float* totals) {
  constexpr std::size_t kVectors = Step::kVectors;
  simd::F32 acc[MR * NR] = {};
  const auto add = [&](const Lane* rows, std::size_t c, const simd::U32* column) {
#pragma GCC unroll 8
    for (std::size_t r = 0; r < MR; ++r) {
      simd::F32& own = acc[r * NR + c];
#pragma GCC unroll 2
      for (std::size_t v = 0; v < kVectors; ++v) {
        own = Step::multiply_add(simd::load(rows + (v * width + r) * kLanes), column[v], own);
      }
    }
  };
  std::size_t k = 0;
  for (; k + Step::kBlock <= length; k += Step::kBlock) {
    const Lane* rows = x + packed_lanes<Step>(k) * width;
#pragma GCC unroll 8
    for (std::size_t c = 0; c < NR; ++c) {
      simd::U32 column[kVectors];
      const auto* elements = w + static_cast<std::ptrdiff_t>(c) * stride + k;
      Step::load(elements, column);
      __builtin_prefetch(elements + ahead);
      add(rows, c, column);
    }
  }
  if (k < length) {
    // Not unrolled: it runs once, and NR copies of a partial load make a large function.
    simd::U32 columns[NR * kVectors];
#pragma GCC unroll 1
    for (std::size_t c = 0; c < NR; ++c) {
      load_last<Step>(w + static_cast<std::ptrdiff_t>(c) * stride + k, length - k,
                      columns + c * kVectors);
    }
    const Lane* rows = x + packed_lanes<Step>(k) * width;
#pragma GCC unroll 8
    for (std::size_t c = 0; c < NR; ++c) {
      add(rows, c, columns + c * kVectors);
    }
  }
  simd::sums<MR * NR>(acc, totals);
}

// One packed row (panel width 1) times `columns` <= kLanes columns that lie side by side in memory:
// element k of all columns is at w + k * stride.
template <typename Step>
simd::F32 multiply_side_by_side(const Lane* x, const typename Step::Element* w,
                                std::ptrdiff_t stride, std::size_t length, std::size_t columns) {
  using T = typename Step::Element;
  simd::F32 acc[kLanes] = {};
  const auto add = [&](const Lane* row, const T* block, std::ptrdiff_t block_stride) {
#pragma GCC unroll 32
    for (std::size_t slot = 0; slot < Step::kVectors * kLanes; ++slot) {
      simd::F32& own = acc[slot % kLanes];
      own =
          Step::multiply_add(simd::U32{} + row[slot], Step::across(block, block_stride, slot), own);
    }
  };
  std::size_t k = 0;
  for (; columns == kLanes && k + Step::kBlock <= length; k += Step::kBlock) {
    add(x + packed_lanes<Step>(k), w + static_cast<std::ptrdiff_t>(k) * stride, stride);
  }
  for (; k < length; k += Step::kBlock) {  // blocks that lack elements are filled up with 0
    T block[Step::kBlock * kLanes] = {};
    for (std::size_t i = 0; i < std::min(Step::kBlock, length - k); ++i) {
      std::copy_n(w + static_cast<std::ptrdiff_t>(k + i) * stride, columns, block + i * kLanes);
    }
    add(x + packed_lanes<Step>(k), block, kLanes);
  }
  for (std::size_t width = kLanes / 2; width > 0; width /= 2) {  // as simd::sum does
    for (std::size_t lane = 0; lane < width; ++lane) {
      acc[lane] += acc[lane + width];
    }
  }
  return acc[0];
}

}  // namespace qwen3::kernels::gemm_detail
