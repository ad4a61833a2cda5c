// Causal attention over a paged cache, with grouped heads, window and soft cap.
//
// Every query takes the blocks of its own past in ascending order and folds each into a running
// softmax (Milakov and Gimelshein 2018, arXiv:1805.02867):
//   m' = max(m, max s),  l' = l e^(m - m') + sum e^(s - m'),  o' = o e^(m - m') + sum e^(s - m') v
// Blocks start at multiples of kCacheBlock, and within a block the sums run in one order. So what a
// query gets depends on its position and the keys alone: not on the batch, on how a prompt was cut
// into chunks, on which block numbers the cache gave out, or on threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <utility>

#include "../parallel.hpp"
#include "../scratch.hpp"
#include "../vector_math.hpp"
#include "attention_options.hpp"
#include "paged_cache.hpp"

namespace qwen3::kernels {

// Rows of heads [num_rows, heads, head_dim]; heads lie side by side, rows `stride` elements apart.
template <typename T>
struct HeadRows {
  T* data;
  std::ptrdiff_t stride;

  T* at(std::size_t row, std::size_t element) const {
    return data + static_cast<std::ptrdiff_t>(row) * stride + element;
  }
};

// Queries and results of elements T over a cache of elements C.
template <typename T, typename C, std::size_t kQueryHeads, std::size_t kHeads, std::size_t kHeadDim>
class PagedAttention {
  static_assert(kQueryHeads % kHeads == 0);
  static_assert(kCacheBlock % (2 * simd::kLanes) == 0);

 public:
  using Cache = PagedCache<C, kHeads, kHeadDim>;

  // out[row, h] = softmax(scale * q[row, h] . keys) values over the row's own past, which the cache
  // holds already, the row's own key and value included.
  static void run(HeadRows<T> out, HeadRows<const T> q, const Cache& cache,
                  const SequenceRows* sequences, std::size_t num_sequences,
                  const AttentionOptions& options) {
    const int threads = ThreadPool::instance().num_threads();
    const Step step{out, q, cache, options, static_cast<std::size_t>(threads)};
    parallel_pieces(
        num_sequences, [&](std::size_t s) { return tiles_of(step, sequences[s]); }, kThreadWork,
        [&](std::size_t s, std::size_t tile) {
          run_tile(step, sequences[s], tile % kHeads, tile / kHeads);
        });
  }

 private:
  static constexpr std::size_t kLanes = simd::kLanes;
  static constexpr std::size_t kGroup = kQueryHeads / kHeads;
  static constexpr std::size_t kVectors = (kHeadDim + kLanes - 1) / kLanes;
  static constexpr std::size_t kPadded = kVectors * kLanes;
  static constexpr std::size_t kMicroRows = 4;
  static constexpr std::size_t kMicroVectors = kLanes == 16 ? 4 : 2;
  static constexpr std::size_t kTilePositions = kGroup >= 32 ? 1 : 32 / kGroup;
  static constexpr std::size_t kTileRows = kTilePositions * kGroup;
  // The fewest positions whose rows are whole groups of kMicroRows.
  static constexpr std::size_t kFewPositions =
      std::min(kTilePositions, kMicroRows / std::gcd(kMicroRows, kGroup));
  static constexpr std::size_t kThreadWork = 65536;  // products that make it worth to wake a thread

  struct Step {
    HeadRows<T> out;
    HeadRows<const T> q;
    const Cache& cache;
    const AttentionOptions& options;
    std::size_t threads;  // that tiles are made for
  };

  // The queries of some positions and one group of heads, position-major: row = position * kGroup +
  // head of the group.
  struct Tile {
    std::size_t count;         // rows
    std::size_t start;         // position of row 0
    float* q;                  // [count, kPadded]
    float* sums;               // [count, kPadded], not yet divided by `total`
    float largest[kTileRows];  // m
    float total[kTileRows];    // l

    std::size_t position(std::size_t row) const { return start + row / kGroup; }
  };

  // Positions of a tile. Tiles are as large as they may be, since each reads its whole past, but a
  // sequence with rows enough has some for every thread.
  static std::size_t positions_of_tile(const Step& step, const SequenceRows& sequence) {
    const std::size_t wanted = (2 * step.threads + kHeads - 1) / kHeads;
    const std::size_t share = sequence.num_rows / wanted / kFewPositions * kFewPositions;
    return std::min(kTilePositions, std::max(kFewPositions, share));
  }

  // The tiles of a sequence over all heads, and about how many products each takes.
  static Pieces tiles_of(const Step& step, const SequenceRows& sequence) {
    const std::size_t rows = sequence.num_rows;
    const std::size_t positions = positions_of_tile(step, sequence);
    const std::size_t own = std::min(rows, positions);
    const std::size_t past = sequence.start + rows;
    const std::size_t window = step.options.window;
    const std::size_t keys = window > 0 ? std::min(past, window + own) : past;
    return {kHeads * ((rows + positions - 1) / positions),
            own * kGroup * (keys + kCacheBlock) * kHeadDim};
  }

  static void run_tile(const Step& step, const SequenceRows& sequence, std::size_t head,
                       std::size_t index) {
    thread_local Scratch scratch;
    const std::size_t most = positions_of_tile(step, sequence);
    const std::size_t first = index * most;
    const std::size_t positions = std::min(most, sequence.num_rows - first);
    Tile tile;
    tile.count = positions * kGroup;
    tile.start = sequence.start + first;
    tile.q = scratch.reserve(2 * kTileRows * kPadded);
    tile.sums = tile.q + kTileRows * kPadded;
    load_queries(step, sequence.first_row + first, head, tile);
    const std::size_t window = step.options.window;
    const std::size_t oldest = window > 0 && tile.start + 1 > window ? tile.start + 1 - window : 0;
    const std::size_t last = tile.start + positions - 1;
    for (std::size_t block = oldest / kCacheBlock; block <= last / kCacheBlock; ++block) {
      const std::size_t offset =
          Cache::offset(static_cast<std::size_t>(sequence.blocks[block]), head);
      fold_block(step, tile, block * kCacheBlock, step.cache.keys + offset,
                 step.cache.values + offset);
    }
    store_results(step, sequence.first_row + first, head, tile);
  }

  static void load_queries(const Step& step, std::size_t first_row, std::size_t head, Tile& tile) {
    for (std::size_t row = 0; row < tile.count; ++row) {
      const T* q = step.q.at(first_row + row / kGroup, (head * kGroup + row % kGroup) * kHeadDim);
      for (std::size_t v = 0; v < kVectors; ++v) {
        simd::store(tile.q + row * kPadded + v * kLanes, load_vector(q, v));
        simd::store(tile.sums + row * kPadded + v * kLanes, simd::F32{});
      }
      tile.largest[row] = -std::numeric_limits<float>::infinity();
      tile.total[row] = 0.0f;
    }
  }

  static void store_results(const Step& step, std::size_t first_row, std::size_t head,
                            const Tile& tile) {
    for (std::size_t row = 0; row < tile.count; ++row) {
      T* out = step.out.at(first_row + row / kGroup, (head * kGroup + row % kGroup) * kHeadDim);
      const simd::F32 total = simd::set(tile.total[row]);
      for (std::size_t v = 0; v < kVectors; ++v) {
        const simd::F32 value = simd::load(tile.sums + row * kPadded + v * kLanes) / total;
        if ((v + 1) * kLanes <= kHeadDim) {
          simd::store(out + v * kLanes, value);
        } else {
          simd::store_first(out + v * kLanes, value, kHeadDim % kLanes);
        }
      }
    }
  }

  // Vector `v` of a head; elements beyond kHeadDim are 0.
  template <typename E>
  static simd::F32 load_vector(const E* head, std::size_t v) {
    if ((v + 1) * kLanes <= kHeadDim) return simd::load(head + v * kLanes);
    return simd::load_first(head + v * kLanes, kHeadDim % kLanes);
  }

  // Folds the keys from position `first_key` on into all rows that see any of them.
  static void fold_block(const Step& step, Tile& tile, std::size_t first_key, const C* keys,
                         const C* values) {
    const std::size_t window = step.options.window;
    std::size_t begin = first_key > tile.start ? (first_key - tile.start) * kGroup : 0;
    std::size_t end = tile.count;
    if (window > 0) {  // the newest query that still sees the block's last key
      const std::size_t beyond = first_key + kCacheBlock - 1 + window;
      if (beyond < tile.start) return;
      end = std::min(end, (beyond - tile.start) * kGroup);
    }
    for (; begin < end; begin += kMicroRows) {
      switch (end - begin) {
        case 1:
          fold_rows<1>(step, tile, begin, first_key, keys, values);
          break;
        case 2:
          fold_rows<2>(step, tile, begin, first_key, keys, values);
          break;
        case 3:
          fold_rows<3>(step, tile, begin, first_key, keys, values);
          break;
        default:
          fold_rows<kMicroRows>(step, tile, begin, first_key, keys, values);
      }
    }
  }

  template <std::size_t kRows>
  static void fold_rows(const Step& step, Tile& tile, std::size_t row, std::size_t first_key,
                        const C* keys, const C* values) {
    // Keys up to the newest of these queries; what lies behind in the block may be anything.
    const std::size_t count = std::min(kCacheBlock, tile.position(row + kRows - 1) + 1 - first_key);
    float weights[kRows][kCacheBlock];
    multiply_keys<kRows>(tile.q + row * kPadded, keys, weights);
    float rescale[kLanes];
    weigh<kRows>(step.options, tile, row, first_key, weights, rescale);
    add_values<kRows>(tile.sums + row * kPadded, rescale, weights, values, count,
                      std::make_index_sequence<(kVectors + kMicroVectors - 1) / kMicroVectors>());
  }

  // Dot products of kRows queries with all keys of a block, which lie side by side; those of keys
  // that are not there yet are meaningless.
  template <std::size_t kRows>
  static void multiply_keys(const float* q, const C* keys, float (*scores)[kCacheBlock]) {
    for (std::size_t first = 0; first < kCacheBlock; first += 2 * kLanes) {
      simd::F32 low[kRows] = {};
      simd::F32 high[kRows] = {};
      for (std::size_t element = 0; element < kHeadDim; ++element) {
        const C* row = keys + element * kCacheBlock + first;
        const simd::F32 own_low = simd::load(row);
        const simd::F32 own_high = simd::load(row + kLanes);
#pragma GCC unroll 4
        for (std::size_t r = 0; r < kRows; ++r) {
          const simd::F32 query = simd::set(q[r * kPadded + element]);
          low[r] = simd::fma(query, own_low, low[r]);
          high[r] = simd::fma(query, own_high, high[r]);
        }
      }
      for (std::size_t r = 0; r < kRows; ++r) {
        simd::store(&scores[r][first], low[r]);
        simd::store(&scores[r][first + kLanes], high[r]);
      }
    }
  }

  // Turns products into weights e^(s - m') of the keys each row sees, 0 for the others, and tells
  // what the rows' sums so far are to be multiplied with.
  template <std::size_t kRows>
  static void weigh(const AttentionOptions& options, Tile& tile, std::size_t row,
                    std::size_t first_key, float (*weights)[kCacheBlock],
                    float (&rescale)[kLanes]) {
    static_assert(kRows <= kLanes);
    simd::F32 tops[kRows];
    for (std::size_t r = 0; r < kRows; ++r) {
      tops[r] = score(options, tile.position(row + r), first_key, weights[r]);
    }
    // A lane for each row; what the others hold is of no use.
    float largest[kLanes] = {};
    simd::largests<kRows>(tops, largest);
    const simd::F32 before = simd::load_first(tile.largest + row, kRows);
    const simd::F32 now = simd::max(before, simd::load(largest));
    simd::store(largest, now);
    simd::store(rescale, simd::exp(before - now));

    simd::F32 sums[kRows] = {};
    for (std::size_t r = 0; r < kRows; ++r) {
      for (std::size_t key = 0; key < kCacheBlock; key += kLanes) {
        const simd::F32 weight = simd::exp(simd::load(weights[r] + key) - simd::set(largest[r]));
        simd::store(weights[r] + key, weight);
        sums[r] += weight;
      }
    }
    float added[kRows];
    simd::sums<kRows>(sums, added);
    for (std::size_t r = 0; r < kRows; ++r) {
      tile.largest[row + r] = largest[r];
      tile.total[row + r] = tile.total[row + r] * rescale[r] + added[r];
    }
  }

  // Turns a row's products into scores, -inf for keys that it does not see; returns a vector whose
  // largest lane is the largest of them.
  static simd::F32 score(const AttentionOptions& options, std::size_t position,
                         std::size_t first_key, float* scores) {
    const std::size_t end = std::min(kCacheBlock, position + 1 - first_key);
    const std::size_t oldest =
        options.window > 0 && position + 1 > options.window ? position + 1 - options.window : 0;
    const std::size_t begin = oldest > first_key ? oldest - first_key : 0;
    for (std::size_t key = 0; key < kCacheBlock; key += kLanes) {
      simd::store(scores + key, simd::load(scores + key) * simd::set(options.scale));
    }
    if (options.softcap > 0.0f) {
      for (std::size_t key = begin; key < end; ++key) {
        scores[key] = options.softcap * std::tanh(scores[key] / options.softcap);
      }
    }
    constexpr float kUnseen = -std::numeric_limits<float>::infinity();
    std::fill(scores, scores + begin, kUnseen);
    std::fill(scores + end, scores + kCacheBlock, kUnseen);
    simd::F32 top = simd::load(scores);
    for (std::size_t key = kLanes; key < kCacheBlock; key += kLanes) {
      top = simd::max(top, simd::load(scores + key));
    }
    return top;
  }

  template <std::size_t kRows, std::size_t... kParts>
  static void add_values(float* sums, const float* rescale, const float (*weights)[kCacheBlock],
                         const C* values, std::size_t count, std::index_sequence<kParts...>) {
    (add_columns<kRows, kParts * kMicroVectors,
                 std::min(kMicroVectors, kVectors - kParts * kMicroVectors)>(sums, rescale, weights,
                                                                             values, count),
     ...);
  }

  // sums = sums * rescale + weights @ values for kCount vectors of columns from kFirst on.
  template <std::size_t kRows, std::size_t kFirst, std::size_t kCount>
  static void add_columns(float* sums, const float* rescale, const float (*weights)[kCacheBlock],
                          const C* values, std::size_t count) {
    simd::F32 own[kRows * kCount];
#pragma GCC unroll 4
    for (std::size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (std::size_t v = 0; v < kCount; ++v) {
        // + 0 makes a negative zero positive, so that weights of 0 change no bit afterwards.
        own[r * kCount + v] =
            simd::load(sums + r * kPadded + (kFirst + v) * kLanes) * simd::set(rescale[r]) +
            simd::F32{};
      }
    }
    for (std::size_t key = 0; key < count; ++key) {
      simd::F32 row[kCount];
#pragma GCC unroll 4
      for (std::size_t v = 0; v < kCount; ++v) {
        row[v] = load_vector(values + key * kHeadDim, kFirst + v);
      }
#pragma GCC unroll 4
      for (std::size_t r = 0; r < kRows; ++r) {
        const simd::F32 weight = simd::set(weights[r][key]);
#pragma GCC unroll 4
        for (std::size_t v = 0; v < kCount; ++v) {
          own[r * kCount + v] = simd::fma(weight, row[v], own[r * kCount + v]);
        }
      }
    }
#pragma GCC unroll 4
    for (std::size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (std::size_t v = 0; v < kCount; ++v) {
        simd::store(sums + r * kPadded + (kFirst + v) * kLanes, own[r * kCount + v]);
      }
    }
  }
};

}  // namespace qwen3::kernels
