// The ops of ops.hpp, for an engine's kernels.cpp to instantiate.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "engine/native/ops.hpp"
#include "kernels/gemm_instances.hpp"
#include "kernels/layer_norm.hpp"
#include "kernels/native/experts.hpp"
#include "kernels/native/head.hpp"
#include "kernels/native/paged_attention.hpp"
#include "kernels/parallel.hpp"
#include "kernels/rms_norm.hpp"
#include "kernels/vector_math.hpp"

namespace qwen3::native {

using kernels::for_each_row;

// First element of row `row`.
template <class T>
T* row_of(const Tensor& tensor, size_t row) {
  return reinterpret_cast<T*>(tensor.data) + static_cast<ptrdiff_t>(row) * tensor.strides[0];
}

// What happens to a head at a position.
inline kernels::HeadTransform head_at(const HeadOptions& options, size_t position) {
  const AngleTables* angles = options.angles;
  if (angles == nullptr) {
    return {options.norm, options.epsilon, nullptr, nullptr, 0, options.pairs};
  }
  const size_t first = position * angles->pairs;
  return {options.norm,           options.epsilon,    angles->sine + first,
          angles->cosine + first, options.rotary_dim, options.pairs};
}

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

struct Tanh : EachLane<tanh_of> {};
struct Gelu : EachLane<gelu_of> {};
struct GeluTanh : EachLane<gelu_tanh_of> {};

template <class T, size_t kColumns, class W>
void GatherRows<T, kColumns, W>::run(const Tensor& out, const Tensor& table, const int32_t* rows) {
  namespace detail = kernels::norm_detail;
  for_each_row(out.shape[0], kColumns, [&](size_t row) {
    T* y = row_of<T>(out, row);
    const W* x = row_of<const W>(table, static_cast<size_t>(rows[row]));
    if constexpr (std::is_same_v<T, W>) {
      std::memcpy(y, x, kColumns * sizeof(T));
    } else {
      detail::for_each_vector(kColumns, [&](size_t start, size_t count) {
        detail::store(y + start, detail::load(x + start, count), count);
      });
    }
  });
}

template <class T, size_t kColumns>
void CopyRows<T, kColumns>::run(const Tensor& out, const Tensor& in) {
  for_each_row(out.shape[0], kColumns, [&](size_t row) {
    std::memcpy(row_of<T>(out, row), row_of<T>(in, row), kColumns * sizeof(T));
  });
}

template <class T, size_t kColumns>
void RepeatRow<T, kColumns>::run(const Tensor& out, const Tensor& vector) {
  for_each_row(out.shape[0], kColumns, [&](size_t row) {
    std::memcpy(row_of<T>(out, row), vector.data, kColumns * sizeof(T));
  });
}

template <class T, size_t kIn, size_t kOut, class W, class Rows>
void Linear<T, kIn, kOut, W, Rows>::run(const Tensor& out, const Tensor& in, const Tensor& weight,
                                        float alpha, float beta) {
  using Step = typename kernels::StepFor<W, T, std::is_same_v<Rows, RoundableRows>>::Type;
  const kernels::GemmShape shape{1, out.shape[0], kOut, kIn};
  kernels::gemm<T, W, Step>(shape, {row_of<const T>(in, 0), 0, in.strides[0], 1},
                            {row_of<const W>(weight, 0), 0, 1, weight.strides[0]},
                            {row_of<T>(out, 0), 0, out.strides[0], 1}, alpha, beta);
}

template <class T, size_t kGroups, size_t kColumns>
void RmsNorm<T, kGroups, kColumns>::run(const Tensor& out, const Tensor& in, const Tensor& weight,
                                        float epsilon) {
  const float* w = floats(weight);
  for_each_row(out.shape[0], kGroups * kColumns, [&](size_t row) {
    for (size_t group = 0; group < kGroups; ++group) {
      kernels::rms_norm_row(row_of<T>(out, row) + group * kColumns,
                            row_of<const T>(in, row) + group * kColumns, w, kColumns, epsilon);
    }
  });
}

template <class T, size_t kGroups, size_t kColumns>
void LayerNorm<T, kGroups, kColumns>::run(const Tensor& out, const Tensor& in, const Tensor& weight,
                                          const float* bias, float epsilon) {
  const float* w = floats(weight);
  for_each_row(out.shape[0], kGroups * kColumns, [&](size_t row) {
    for (size_t group = 0; group < kGroups; ++group) {
      kernels::layer_norm_row(row_of<T>(out, row) + group * kColumns,
                              row_of<const T>(in, row) + group * kColumns, w, bias, kColumns,
                              epsilon);
    }
  });
}

template <class T, size_t kHeads, size_t kHeadDim>
void TransformHeads<T, kHeads, kHeadDim>::run(const Tensor& out, const Tensor& in,
                                              const HeadOptions& options,
                                              const int32_t* positions) {
  for_each_row(out.shape[0], kHeads * kHeadDim, [&](size_t row) {
    const kernels::HeadTransform transform = head_at(options, static_cast<size_t>(positions[row]));
    for (size_t head = 0; head < kHeads; ++head) {
      kernels::transform_head<kHeadDim>(row_of<T>(out, row) + head * kHeadDim,
                                        row_of<const T>(in, row) + head * kHeadDim, transform);
    }
  });
}

template <class T, class C, size_t kHeads, size_t kHeadDim>
void AppendKeyValue<T, C, kHeads, kHeadDim>::run(const PagedLayerCache& cache,
                                                 const Sequences& sequences, const Tensor& keys,
                                                 const Tensor& values, const HeadOptions& options) {
  const kernels::PagedCache<C, kHeads, kHeadDim> paged{reinterpret_cast<C*>(cache.keys),
                                                       reinterpret_cast<C*>(cache.values)};
  for (const kernels::SequenceRows& sequence : sequences) {
    for_each_row(sequence.num_rows, 2 * kHeads * kHeadDim, [&](size_t index) {
      const size_t position = sequence.start + index, row = sequence.first_row + index;
      const auto block = static_cast<size_t>(sequence.blocks[position / kernels::kCacheBlock]);
      const kernels::HeadTransform transform = head_at(options, position);
      for (size_t head = 0; head < kHeads; ++head) {
        C key[kHeadDim], value[kHeadDim];
        kernels::transform_head<kHeadDim>(key, row_of<const T>(keys, row) + head * kHeadDim,
                                          transform);
        kernels::transform_head<kHeadDim>(value, row_of<const T>(values, row) + head * kHeadDim,
                                          kernels::HeadTransform{});
        paged.write(block, head, position % kernels::kCacheBlock, key, value);
      }
    });
  }
}

template <class T, class C, size_t kQueryHeads, size_t kHeads, size_t kHeadDim>
void PagedAttention<T, C, kQueryHeads, kHeads, kHeadDim>::run(const Tensor& out,
                                                              const Tensor& queries,
                                                              const PagedLayerCache& cache,
                                                              const Sequences& sequences,
                                                              const AttentionOptions& options) {
  using Kernel = kernels::PagedAttention<T, C, kQueryHeads, kHeads, kHeadDim>;
  Kernel::run({row_of<T>(out, 0), out.strides[0]},
              {row_of<const T>(queries, 0), queries.strides[0]},
              {reinterpret_cast<C*>(cache.keys), reinterpret_cast<C*>(cache.values)},
              sequences.data(), sequences.size(), options);
}

template <class T, size_t kColumns, class Function>
void Unary<T, kColumns, Function>::run(const Tensor& out, const Tensor& in) {
  namespace detail = kernels::norm_detail;
  for_each_row(out.shape[0], kColumns, [&](size_t row) {
    T* y = row_of<T>(out, row);
    const T* x = row_of<const T>(in, row);
    detail::for_each_vector(kColumns, [&](size_t start, size_t count) {
      detail::store(y + start, Function()(detail::load(x + start, count)), count);
    });
  });
}

template <class T, size_t kColumns, class Function>
void Binary<T, kColumns, Function>::run(const Tensor& out, const Tensor& first,
                                        const Tensor& second) {
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

template <class T, size_t kGroups, size_t kColumns>
void ScaleGroups<T, kGroups, kColumns>::run(const Tensor& out, const Tensor& in,
                                            const Tensor& factors) {
  namespace detail = kernels::norm_detail;
  for_each_row(out.shape[0], kGroups * kColumns, [&](size_t row) {
    for (size_t group = 0; group < kGroups; ++group) {
      T* y = row_of<T>(out, row) + group * kColumns;
      const T* x = row_of<const T>(in, row) + group * kColumns;
      const auto factor = kernels::simd::set(kernels::to_float(row_of<T>(factors, row)[group]));
      detail::for_each_vector(kColumns, [&](size_t start, size_t count) {
        detail::store(y + start, detail::load(x + start, count) * factor, count);
      });
    }
  });
}

template <class T, size_t kExperts, size_t kTopK>
void ChooseExperts<T, kExperts, kTopK>::run(const ExpertChoice& choice, const Tensor& logits,
                                            bool normalize) {
  for_each_row(logits.shape[0], kExperts * kTopK, [&](size_t row) {
    kernels::choose_experts<kExperts, kTopK>(row_of<const T>(logits, row), normalize,
                                             row_of<int32_t>(choice.experts, row),
                                             row_of<float>(choice.weights, row));
  });
}

template <class T, size_t kHidden, size_t kIntermediate, size_t kExperts, size_t kTopK,
          class Function, class W>
void MixExperts<T, kHidden, kIntermediate, kExperts, kTopK, Function, W>::run(
    const Tensor& out, const Tensor& in, const ExpertChoice& choice, const ExpertMatrices& matrices,
    const MixtureScratch& scratch) {
  const kernels::ExpertMixture<T, kHidden, kIntermediate, kExperts, kTopK, Function, W> mixture{
      {row_of<T>(out, 0), out.strides[0]},
      {row_of<const T>(in, 0), in.strides[0]},
      row_of<const int32_t>(choice.experts, 0),
      row_of<const float>(choice.weights, 0),
      {row_of<T>(scratch.rows, 0), row_of<T>(scratch.gate, 0), row_of<T>(scratch.up, 0),
       row_of<float>(scratch.sums, 0)}};
  const std::vector<Tensor>* roles[] = {&matrices.gate, &matrices.up, &matrices.down};
  mixture.run(out.shape[0], [&](size_t role, size_t expert) {
    const Tensor& matrix = (*roles[role])[expert];
    return kernels::MatrixRows<const W>{row_of<const W>(matrix, 0), matrix.strides[0]};
  });
}

template <class T, size_t kColumns>
void ScaleRows<T, kColumns>::run(const Tensor& out, const Tensor& in, float factor) {
  namespace detail = kernels::norm_detail;
  for_each_row(out.shape[0], kColumns, [&](size_t row) {
    T* y = row_of<T>(out, row);
    const T* x = row_of<const T>(in, row);
    detail::for_each_vector(kColumns, [&](size_t start, size_t count) {
      detail::store(y + start, detail::load(x + start, count) * kernels::simd::set(factor), count);
    });
  });
}

}  // namespace qwen3::native
