// How a matrix product multiplies: what the lanes of a packed operand hold, and the step that adds
// their products to sums.
//
// A packed operand is made of vectors of 32-bit lanes. A step cuts k into blocks of kBlock elements
// and packs each into kVectors vectors; the functions that pack, tile and thread know no more of
// it. A step has
//
//   RowElement        of the operand whose rows are always packed
//   Element           of the other operand, which may be read in place
//   kChunk            elements of k that are summed in registers before the lanes are added up
//   load              packs a block of contiguous elements of either type
//   across            packs for kLanes neighbouring rows: lane `slot` of the block of each
//   multiply_add      sums + x * w, lane by lane
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "simd.hpp"

namespace qwen3::kernels {

inline constexpr std::size_t kLanes = simd::kLanes;

using Lane = std::uint32_t;

// One float in a lane, multiplied by fused multiply-adds; 16-bit elements are widened. X, the rows'
// type, is W or float.
template <typename W, typename X = W>
struct FloatStep {
  using RowElement = X;
  using Element = W;
  // That is one load of 16-bit elements.
  static constexpr std::size_t kBlock = 2 * kLanes;
  static constexpr std::size_t kVectors = 2;
  static constexpr std::size_t kChunk = 512;

  // A bfloat16 block falls apart into even and odd elements, because a mask and a shift then make
  // floats of them, and rows beside it likewise; other types stay in order.
  static constexpr std::size_t element_at(std::size_t slot) {
    if constexpr (std::is_same_v<W, Bf16>) {
      return slot < kLanes ? 2 * slot : 2 * (slot - kLanes) + 1;
    } else {
      return slot;
    }
  }

  template <typename T>
  static void load(const T* source, simd::U32* vectors) {
    if constexpr (std::is_same_v<T, Bf16>) {
      simd::U32 pairs;
      std::memcpy(&pairs, source, sizeof pairs);
      vectors[0] = pairs << 16;
      vectors[1] = pairs & 0xffff0000u;
    } else if constexpr (std::is_same_v<W, Bf16>) {
      T ordered[kBlock];
      for (std::size_t slot = 0; slot < kBlock; ++slot) ordered[slot] = source[element_at(slot)];
      std::memcpy(vectors, ordered, sizeof ordered);
    } else {
      vectors[0] = reinterpret_cast<simd::U32>(simd::load(source));
      vectors[1] = reinterpret_cast<simd::U32>(simd::load(source + kLanes));
    }
  }

  template <typename T>
  static simd::U32 across(const T* source, std::ptrdiff_t k_stride, std::size_t slot) {
    const auto k = static_cast<std::ptrdiff_t>(element_at(slot));
    return reinterpret_cast<simd::U32>(simd::load(source + k * k_stride));
  }

  static simd::F32 multiply_add(simd::U32 x, simd::U32 w, simd::F32 sums) {
    return simd::fma(reinterpret_cast<simd::F32>(x), reinterpret_cast<simd::F32>(w), sums);
  }
};

// Two neighbouring bfloat16 elements in a lane, as they lie in memory, multiplied by dot_pairs.
// Rows X are bfloat16 as well, or floats that are rounded to it as they are packed.
template <typename X>
struct Bf16PairStep {
  using RowElement = X;
  using Element = Bf16;
  static constexpr std::size_t kBlock = 2 * kLanes;
  static constexpr std::size_t kVectors = 1;
  // Longer than with floats: adding up the lanes costs as much, multiplying half as much.
  static constexpr std::size_t kChunk = 1024;

  static void load(const Bf16* source, simd::U32* vectors) {
    std::memcpy(vectors, source, sizeof *vectors);
  }

  static void load(const float* source, simd::U32* vectors) {
    Bf16 rounded[kBlock];
    simd::store(rounded, simd::load(source));
    simd::store(rounded + kLanes, simd::load(source + kLanes));
    load(rounded, vectors);
  }

  template <typename T>
  static simd::U32 across(const T* source, std::ptrdiff_t k_stride, std::size_t slot) {
    const T* even = source + 2 * static_cast<std::ptrdiff_t>(slot) * k_stride;
    return bits(even) | bits(even + k_stride) << 16;
  }

  static simd::F32 multiply_add(simd::U32 x, simd::U32 w, simd::F32 sums) {
    return simd::dot_pairs(x, w, sums);
  }

 private:
  // kLanes elements, each in the lower half of a lane.
  static simd::U32 bits(const Bf16* source) {
    simd::U16 narrow;
    std::memcpy(&narrow, source, sizeof narrow);
    return __builtin_convertvector(narrow, simd::U32);
  }

  static simd::U32 bits(const float* source) {
    Bf16 rounded[kLanes];
    simd::store(rounded, simd::load(source));
    return bits(rounded);
  }
};

// The step for products of rows of X with W on this instruction set. kMayRoundRows: whether the
// rows may be rounded to W where that is faster; only the caller knows what a rounding can do.
template <typename W, typename X = W, bool kMayRoundRows = false>
struct StepFor {
  using Type = FloatStep<W, X>;
};

#if defined(QWEN3_SIMD_AVX512_BF16)
template <bool kMayRoundRows>
struct StepFor<Bf16, Bf16, kMayRoundRows> {
  using Type = Bf16PairStep<Bf16>;
};

template <>
struct StepFor<Bf16, float, true> {
  using Type = Bf16PairStep<float>;
};
#endif

}  // namespace qwen3::kernels
