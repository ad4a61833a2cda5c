// The innermost loops of a matrix product: a few rows times a few columns over one chunk of k.
#pragma once

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
template <std::size_t MR, std::size_t NR>
void multiply_packed(const float* x, const float* w, std::size_t vectors, float* totals) {
  simd::F32 acc[MR * NR] = {};
  for (std::size_t v = 0; v < vectors; ++v) {
    simd::F32 rows[MR];
#pragma GCC unroll 8
    for (std::size_t r = 0; r < MR; ++r) {
      rows[r] = simd::load(x + (v * MR + r) * kLanes);
    }
#pragma GCC unroll 8
    for (std::size_t c = 0; c < NR; ++c) {
      const simd::F32 column = simd::load(w + (v * NR + c) * kLanes);
#pragma GCC unroll 8
      for (std::size_t r = 0; r < MR; ++r) {
        acc[r * NR + c] = simd::fma(rows[r], column, acc[r * NR + c]);
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
template <std::size_t MR, std::size_t NR, typename T>
void multiply_in_place(const float* x, std::size_t width, const T* w, std::ptrdiff_t stride,
                       std::size_t length, float* totals) {
  simd::F32 acc[MR * NR] = {};
  const auto add = [&](std::size_t k, std::size_t c, simd::F32 first, simd::F32 second) {
    const float* rows = x + k * width;
#pragma GCC unroll 8
    for (std::size_t r = 0; r < MR; ++r) {
      simd::F32& own = acc[r * NR + c];
      own = simd::fma(simd::load(rows + r * kLanes), first, own);
      own = simd::fma(simd::load(rows + (width + r) * kLanes), second, own);
    }
  };
  simd::F32 first;
  simd::F32 second;
  std::size_t k = 0;
  for (; k + kBlock <= length; k += kBlock) {
#pragma GCC unroll 8
    for (std::size_t c = 0; c < NR; ++c) {
      load_block(w + static_cast<std::ptrdiff_t>(c) * stride + k, first, second);
      add(k, c, first, second);
    }
  }
  if (k < length) {
    // Not unrolled: it runs once, and NR copies of a partial load make a large function.
    simd::F32 firsts[NR];
    simd::F32 seconds[NR];
#pragma GCC unroll 1
    for (std::size_t c = 0; c < NR; ++c) {
      load_last_block(w + static_cast<std::ptrdiff_t>(c) * stride + k, length - k, firsts[c],
                      seconds[c]);
    }
#pragma GCC unroll 8
    for (std::size_t c = 0; c < NR; ++c) {
      add(k, c, firsts[c], seconds[c]);
    }
  }
  simd::sums<MR * NR>(acc, totals);
}

// One packed row (panel width 1) times `columns` <= kLanes columns that lie side by side in memory:
// element k of all columns is at w + k * stride.
template <typename T>
simd::F32 multiply_side_by_side(const float* x, const T* w, std::ptrdiff_t stride,
                                std::size_t length, std::size_t columns) {
  simd::F32 acc[kLanes] = {};
  const auto add = [&](std::size_t block, std::size_t slot, simd::F32 column) {
    simd::F32& own = acc[slot % kLanes];
    own = simd::fma(simd::set(x[block + slot]), column, own);
  };
  std::size_t block = 0;
  for (; columns == kLanes && block + kBlock <= length; block += kBlock) {
#pragma GCC unroll 32
    for (std::size_t slot = 0; slot < kBlock; ++slot) {
      const auto k = static_cast<std::ptrdiff_t>(block + element_at<T>(slot));
      add(block, slot, simd::load(w + k * stride));
    }
  }
  for (; block < length; block += kBlock) {
    for (std::size_t slot = 0; slot < kBlock; ++slot) {
      const std::size_t k = block + element_at<T>(slot);
      if (k < length) {
        add(block, slot, simd::load_first(w + static_cast<std::ptrdiff_t>(k) * stride, columns));
      }
    }
  }
  for (std::size_t width = kLanes / 2; width > 0; width /= 2) {  // as simd::sum does
    for (std::size_t lane = 0; lane < width; ++lane) {
      acc[lane] += acc[lane + width];
    }
  }
  return acc[0];
}

}  // namespace qwen3::kernels::gemm_detail
