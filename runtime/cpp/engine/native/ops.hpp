// The ops of the native lowering: tensors in, kernels called with an engine's sizes.
//
// Every op is a class template over the element type and the sizes of one row, instantiated once
// per engine in its kernels.cpp (from op_kernels.hpp); row counts, lengths and block tables come
// with the call. Rows of a tensor may lie apart; what is in a row is contiguous. Tables and
// matrices are of elements W where an op names them: of T, or of 16 bits beside floats.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/native/native_engine.hpp"
#include "engine/tensor.hpp"
#include "kernels/half.hpp"
#include "kernels/native/attention_options.hpp"
#include "kernels/native/paged_cache.hpp"
#include "kernels/rope_pairs.hpp"

namespace qwen3::native {

using kernels::AttentionOptions;
using kernels::RopePairs;
inline constexpr RopePairs kHalves = RopePairs::kHalves;
inline constexpr RopePairs kInterleaved = RopePairs::kInterleaved;
using Sequences = std::vector<kernels::SequenceRows>;
// Elements of caches, tables and matrices.
using F32 = float;
using kernels::Bf16;
using kernels::F16;

// A weight that stays in float32 beside half activations.
inline const float* floats(const Tensor& weight) {
  return reinterpret_cast<const float*>(weight.data);
}

// Rows of a table, chosen by number: embeddings, and the rows whose logits are wanted.
template <class T, size_t kColumns, class W = T>
struct GatherRows {
  static void run(const Tensor& out, const Tensor& table, const int32_t* rows);
};

template <class T, size_t kColumns>
struct CopyRows {
  static void run(const Tensor& out, const Tensor& in);
};

// The same vector in every row: what a product with a bias is added to.
template <class T, size_t kColumns>
struct RepeatRow {
  static void run(const Tensor& out, const Tensor& vector);
};

// What a product may do to rows of floats beside a matrix of 16 bits: multiply them as they are, or
// round them to the matrix's elements first where the instruction set has products of those alone
// that are faster (AVX512_BF16). The plan says which: a router would choose other experts.
struct ExactRows;
struct RoundableRows;

// out = alpha * in @ weight^T + beta * out, weight [kOut, kIn], summed in float, rounded once.
template <class T, size_t kIn, size_t kOut, class W = T, class Rows = ExactRows>
struct Linear {
  static void run(const Tensor& out, const Tensor& in, const Tensor& weight, float alpha,
                  float beta);
};

// Norm of kGroups runs of kColumns elements in every row; weight [kColumns] in float32.
template <class T, size_t kGroups, size_t kColumns>
struct RmsNorm {
  static void run(const Tensor& out, const Tensor& in, const Tensor& weight, float epsilon);
};

// The same with the mean taken away first; `bias` in float32 too, or null.
template <class T, size_t kGroups, size_t kColumns>
struct LayerNorm {
  static void run(const Tensor& out, const Tensor& in, const Tensor& weight, const float* bias,
                  float epsilon);
};

// The norm and rotation of heads; what is left out is null. See kernels::HeadTransform.
struct HeadOptions {
  const float* norm = nullptr;
  float epsilon = 0.0f;
  const AngleTables* angles = nullptr;
  size_t rotary_dim = 0;
  RopePairs pairs = RopePairs::kHalves;
};

// Norm and rotation of queries.
template <class T, size_t kHeads, size_t kHeadDim>
struct TransformHeads {
  static void run(const Tensor& out, const Tensor& in, const HeadOptions& options,
                  const int32_t* positions);
};

// Norm and rotation of keys on their way into the cache, of elements C, and values beside them.
template <class T, class C, size_t kHeads, size_t kHeadDim>
struct AppendKeyValue {
  static void run(const PagedLayerCache& cache, const Sequences& sequences, const Tensor& keys,
                  const Tensor& values, const HeadOptions& options);
};

// Attention of kQueryHeads queries over the kHeads keys and values a cache holds.
template <class T, class C, size_t kQueryHeads, size_t kHeads, size_t kHeadDim>
struct PagedAttention {
  static void run(const Tensor& out, const Tensor& queries, const PagedLayerCache& cache,
                  const Sequences& sequences, const AttentionOptions& options);
};

// What happens to single elements; see op_kernels.hpp.
struct Add;
struct Mul;
struct SwiGlu;
struct Silu;
struct Sigmoid;
struct Relu;
struct Relu2;
struct Tanh;
struct Gelu;
struct GeluTanh;

// out = kFunction(in), elements of kColumns in every row; out may be in.
template <class T, size_t kColumns, class Function>
struct Unary {
  static void run(const Tensor& out, const Tensor& in);
};

// out = kFunction(first, second); out may be either.
template <class T, size_t kColumns, class Function>
struct Binary {
  static void run(const Tensor& out, const Tensor& first, const Tensor& second);
};

// Every run of kColumns elements times a number of its own, [rows, kGroups]; out may be in.
template <class T, size_t kGroups, size_t kColumns>
struct ScaleGroups {
  static void run(const Tensor& out, const Tensor& in, const Tensor& factors);
};

// Experts of every row and what each counts, both [rows, kTopK].
struct ExpertChoice {
  const Tensor& experts;  // int32
  const Tensor& weights;  // float32
};

// The kTopK experts of every row by the softmax of its logits [rows, kExperts].
template <class T, size_t kExperts, size_t kTopK>
struct ChooseExperts {
  static void run(const ExpertChoice& choice, const Tensor& logits, bool normalize);
};

// A matrix per expert each, [out, in].
struct ExpertMatrices {
  const std::vector<Tensor>& gate;
  const std::vector<Tensor>& up;
  const std::vector<Tensor>& down;
};

// See kernels::MixtureScratch.
struct MixtureScratch {
  const Tensor& rows;
  const Tensor& gate;
  const Tensor& up;
  const Tensor& sums;
};

// What the chosen experts give, weighted and added; Function activates the gate.
template <class T, size_t kHidden, size_t kIntermediate, size_t kExperts, size_t kTopK,
          class Function, class W = T>
struct MixExperts {
  static void run(const Tensor& out, const Tensor& in, const ExpertChoice& choice,
                  const ExpertMatrices& matrices, const MixtureScratch& scratch);
};

// out = in * factor; out may be in.
template <class T, size_t kColumns>
struct ScaleRows {
  static void run(const Tensor& out, const Tensor& in, float factor);
};

}  // namespace qwen3::native
