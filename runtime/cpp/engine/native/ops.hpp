// The ops of the native lowering: tensors in, kernels called with an engine's sizes.
//
// Every op is a class template over the element type and the sizes of one row, instantiated once
// per engine in its kernels.cpp; row counts, lengths and block tables come with the call. Rows of a
// tensor may lie apart; what is in a row is contiguous.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "engine/native/native_engine.hpp"
#include "engine/tensor.hpp"
#include "kernels/gemm_instances.hpp"
#include "kernels/native/head.hpp"
#include "kernels/native/paged_attention.hpp"
#include "kernels/parallel.hpp"
#include "kernels/rms_norm.hpp"
#include "kernels/vector_math.hpp"

namespace qwen3::native {

using kernels::AttentionOptions;
using kernels::RopePairs;
inline constexpr RopePairs kHalves = RopePairs::kHalves;
inline constexpr RopePairs kInterleaved = RopePairs::kInterleaved;
using Sequences = std::vector<kernels::SequenceRows>;

// A weight that stays in float32 beside half activations.
inline const float* floats(const Tensor& weight) {
  return reinterpret_cast<const float*>(weight.data);
}

// First element of row `row`.
template <class T>
T* row_of(const Tensor& tensor, size_t row) {
  return reinterpret_cast<T*>(tensor.data) + static_cast<ptrdiff_t>(row) * tensor.strides[0];
}

// Calls body(row) for every row, over threads where that is worth it.
template <class Body>
void for_each_row(size_t rows, size_t columns, const Body& body) {
  constexpr size_t kThreadElements = 16384;
  kernels::parallel_for(rows, kThreadElements / columns + 1, [&](size_t begin, size_t end) {
    for (size_t row = begin; row < end; ++row) body(row);
  });
}

// Rows of a table, chosen by number: embeddings, and the rows whose logits are wanted.
template <class T, size_t kColumns>
struct GatherRows {
  static void run(const Tensor& out, const Tensor& table, const int32_t* rows) {
    for_each_row(out.shape[0], kColumns, [&](size_t row) {
      std::memcpy(row_of<T>(out, row), row_of<T>(table, static_cast<size_t>(rows[row])),
                  kColumns * sizeof(T));
    });
  }
};

template <class T, size_t kColumns>
struct CopyRows {
  static void run(const Tensor& out, const Tensor& in) {
    for_each_row(out.shape[0], kColumns, [&](size_t row) {
      std::memcpy(row_of<T>(out, row), row_of<T>(in, row), kColumns * sizeof(T));
    });
  }
};

// The same vector in every row: what a product with a bias is added to.
template <class T, size_t kColumns>
struct RepeatRow {
  static void run(const Tensor& out, const Tensor& vector) {
    for_each_row(out.shape[0], kColumns, [&](size_t row) {
      std::memcpy(row_of<T>(out, row), vector.data, kColumns * sizeof(T));
    });
  }
};

// out = alpha * in @ weight^T + beta * out, weight [kOut, kIn], summed in float, rounded once.
template <class T, size_t kIn, size_t kOut>
struct Linear {
  static void run(const Tensor& out, const Tensor& in, const Tensor& weight, float alpha,
                  float beta) {
    const kernels::GemmShape shape{1, out.shape[0], kOut, kIn};
    kernels::gemm<T>(shape, {row_of<const T>(in, 0), 0, in.strides[0], 1},
                     {row_of<const T>(weight, 0), 0, 1, weight.strides[0]},
                     {row_of<T>(out, 0), 0, out.strides[0], 1}, alpha, beta);
  }
};

// Norm of kGroups runs of kColumns elements in every row; weight [kColumns] in float32.
template <class T, size_t kGroups, size_t kColumns>
struct RmsNorm {
  static void run(const Tensor& out, const Tensor& in, const Tensor& weight, float epsilon) {
    const float* w = floats(weight);
    for_each_row(out.shape[0], kGroups * kColumns, [&](size_t row) {
      for (size_t group = 0; group < kGroups; ++group) {
        kernels::rms_norm_row(row_of<T>(out, row) + group * kColumns,
                              row_of<const T>(in, row) + group * kColumns, w, kColumns, epsilon);
      }
    });
  }
};

// The norm and rotation of heads; what is left out is null. See kernels::HeadTransform.
struct HeadOptions {
  const float* norm = nullptr;
  float epsilon = 0.0f;
  const AngleTables* angles = nullptr;
  size_t rotary_dim = 0;
  RopePairs pairs = RopePairs::kHalves;

  kernels::HeadTransform at(size_t position) const {
    if (angles == nullptr) return {norm, epsilon, nullptr, nullptr, 0, pairs};
    const size_t first = position * angles->pairs;
    return {norm, epsilon, angles->sine + first, angles->cosine + first, rotary_dim, pairs};
  }
};

// Norm and rotation of queries.
template <class T, size_t kHeads, size_t kHeadDim>
struct TransformHeads {
  static void run(const Tensor& out, const Tensor& in, const HeadOptions& options,
                  const int32_t* positions) {
    for_each_row(out.shape[0], kHeads * kHeadDim, [&](size_t row) {
      const kernels::HeadTransform transform = options.at(static_cast<size_t>(positions[row]));
      for (size_t head = 0; head < kHeads; ++head) {
        kernels::transform_head<kHeadDim>(row_of<T>(out, row) + head * kHeadDim,
                                          row_of<const T>(in, row) + head * kHeadDim, transform);
      }
    });
  }
};

// Norm and rotation of keys on their way into the cache, and values beside them.
template <class T, size_t kHeads, size_t kHeadDim>
struct AppendKeyValue {
  static void run(const PagedLayerCache& cache, const Sequences& sequences, const Tensor& keys,
                  const Tensor& values, const HeadOptions& options) {
    using Cache = kernels::PagedCache<T, kHeads, kHeadDim>;
    for (const kernels::SequenceRows& sequence : sequences) {
      for_each_row(sequence.num_rows, 2 * kHeads * kHeadDim, [&](size_t index) {
        const size_t position = sequence.start + index, row = sequence.first_row + index;
        const auto block = static_cast<size_t>(sequence.blocks[position / kernels::kCacheBlock]);
        const kernels::HeadTransform transform = options.at(position);
        for (size_t head = 0; head < kHeads; ++head) {
          const size_t place =
              Cache::offset(block, head) + position % kernels::kCacheBlock * kHeadDim;
          kernels::transform_head<kHeadDim>(reinterpret_cast<T*>(cache.keys) + place,
                                            row_of<const T>(keys, row) + head * kHeadDim,
                                            transform);
          std::memcpy(reinterpret_cast<T*>(cache.values) + place,
                      row_of<const T>(values, row) + head * kHeadDim, kHeadDim * sizeof(T));
        }
      });
    }
  }
};

// Attention of kQueryHeads queries over the kHeads keys and values a cache holds.
template <class T, size_t kQueryHeads, size_t kHeads, size_t kHeadDim>
struct PagedAttention {
  static void run(const Tensor& out, const Tensor& queries, const PagedLayerCache& cache,
                  const Sequences& sequences, const AttentionOptions& options) {
    using Kernel = kernels::PagedAttention<T, kQueryHeads, kHeads, kHeadDim>;
    Kernel::run({row_of<T>(out, 0), out.strides[0]},
                {row_of<const T>(queries, 0), queries.strides[0]},
                {reinterpret_cast<T*>(cache.keys), reinterpret_cast<T*>(cache.values)},
                sequences.data(), sequences.size(), options);
  }
};

// What happens to single elements, kLanes of them at a time.
struct Add {
  kernels::simd::F32 operator()(kernels::simd::F32 a, kernels::simd::F32 b) const { return a + b; }
};

struct Mul {
  kernels::simd::F32 operator()(kernels::simd::F32 a, kernels::simd::F32 b) const { return a * b; }
};

struct SwiGlu {
  kernels::simd::F32 operator()(kernels::simd::F32 gate, kernels::simd::F32 up) const {
    return kernels::simd::silu(gate) * up;
  }
};

struct Silu {
  kernels::simd::F32 operator()(kernels::simd::F32 x) const { return kernels::simd::silu(x); }
};

struct Sigmoid {
  kernels::simd::F32 operator()(kernels::simd::F32 x) const { return kernels::simd::sigmoid(x); }
};

struct Relu {
  kernels::simd::F32 operator()(kernels::simd::F32 x) const {
    return kernels::simd::max(kernels::simd::F32{}, x);
  }
};

struct Relu2 {
  kernels::simd::F32 operator()(kernels::simd::F32 x) const {
    const kernels::simd::F32 positive = Relu()(x);
    return positive * positive;
  }
};

// A function of the C library, lane by lane.
template <float (*kFunction)(float)>
struct EachLane {
  kernels::simd::F32 operator()(kernels::simd::F32 x) const {
    for (int lane = 0; lane < kernels::simd::kLanes; ++lane) x[lane] = kFunction(x[lane]);
    return x;
  }
};

// x * Phi(x), Phi the normal distribution's.
inline float gelu_of(float x) { return 0.5f * x * (1.0f + std::erf(x * 0.70710678f)); }

// Hendrycks and Gimpel 2016, the approximation by tanh.
inline float gelu_tanh_of(float x) {
  return 0.5f * x * (1.0f + std::tanh(0.79788456f * (x + 0.044715f * x * x * x)));
}

inline float tanh_of(float x) { return std::tanh(x); }

using Tanh = EachLane<tanh_of>;
using Gelu = EachLane<gelu_of>;
using GeluTanh = EachLane<gelu_tanh_of>;

// out = kFunction(in), elements of kColumns in every row; out may be in.
template <class T, size_t kColumns, class Function>
struct Unary {
  static void run(const Tensor& out, const Tensor& in) {
    namespace detail = kernels::norm_detail;
    for_each_row(out.shape[0], kColumns, [&](size_t row) {
      T* y = row_of<T>(out, row);
      const T* x = row_of<const T>(in, row);
      detail::for_each_vector(kColumns, [&](size_t start, size_t count) {
        detail::store(y + start, Function()(detail::load(x + start, count)), count);
      });
    });
  }
};

// out = kFunction(first, second); out may be either.
template <class T, size_t kColumns, class Function>
struct Binary {
  static void run(const Tensor& out, const Tensor& first, const Tensor& second) {
    namespace detail = kernels::norm_detail;
    for_each_row(out.shape[0], kColumns, [&](size_t row) {
      T* y = row_of<T>(out, row);
      const T* a = row_of<const T>(first, row);
      const T* b = row_of<const T>(second, row);
      detail::for_each_vector(kColumns, [&](size_t start, size_t count) {
        detail::store(y + start,
                      Function()(detail::load(a + start, count), detail::load(b + start, count)),
                      count);
      });
    });
  }
};

// out = in * factor; out may be in.
template <class T, size_t kColumns>
struct ScaleRows {
  static void run(const Tensor& out, const Tensor& in, float factor) {
    namespace detail = kernels::norm_detail;
    for_each_row(out.shape[0], kColumns, [&](size_t row) {
      T* y = row_of<T>(out, row);
      const T* x = row_of<const T>(in, row);
      detail::for_each_vector(kColumns, [&](size_t start, size_t count) {
        detail::store(y + start, detail::load(x + start, count) * kernels::simd::set(factor),
                      count);
      });
    });
  }
};

}  // namespace qwen3::native
