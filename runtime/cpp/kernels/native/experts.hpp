// Mixture of experts: which experts a row uses, and the weighted sum of what they give.
//
// A row's result depends on that row alone. Its experts are chosen from its own logits; the rows of
// an expert go through the same matrix products whatever their number (gemm_order.hpp); and a row's
// experts are added in ascending order of their numbers.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "../gemm.hpp"
#include "../parallel.hpp"
#include "../rms_norm.hpp"
#include "../softmax.hpp"

namespace qwen3::kernels {

// The kTopK most probable experts of one row, lower number first among equals; their probabilities,
// which add up to 1 when they are normalised.
template <std::size_t kExperts, std::size_t kTopK, typename T>
void choose_experts(const T* logits, bool normalize, std::int32_t* experts, float* weights) {
  static_assert(kTopK <= kExperts);
  float probabilities[kExperts];
  for (std::size_t e = 0; e < kExperts; ++e) probabilities[e] = to_float(logits[e]);
  softmax_row(probabilities, 1, probabilities, 1, kExperts, kExperts);
  bool is_chosen[kExperts] = {};
  float total = 0.0f;
  for (std::size_t rank = 0; rank < kTopK; ++rank) {
    std::size_t best = kExperts;
    for (std::size_t e = 0; e < kExperts; ++e) {
      if (!is_chosen[e] && (best == kExperts || probabilities[e] > probabilities[best])) best = e;
    }
    is_chosen[best] = true;
    experts[rank] = static_cast<std::int32_t>(best);
    weights[rank] = probabilities[best];
    total += weights[rank];
  }
  for (std::size_t rank = 0; normalize && rank < kTopK; ++rank) weights[rank] /= total;
}

// Which rows chose which expert. A choice is a row and a rank, numbered row * top_k + rank.
class ChoicesByExpert {
 public:
  // experts: [num_choices], every one below num_experts.
  ChoicesByExpert(const std::int32_t* experts, std::size_t num_choices, std::size_t num_experts)
      : ends_(num_experts + 1), choices_(num_choices) {
    for (std::size_t i = 0; i < num_choices; ++i) ++ends_[static_cast<std::size_t>(experts[i]) + 1];
    for (std::size_t e = 0; e < num_experts; ++e) ends_[e + 1] += ends_[e];
    std::vector<std::size_t> next(ends_.begin(), ends_.end() - 1);
    for (std::size_t i = 0; i < num_choices; ++i) choices_[next[experts[i]]++] = i;
  }

  // The choices of one expert in ascending order.
  const std::size_t* begin(std::size_t expert) const { return choices_.data() + ends_[expert]; }
  std::size_t count(std::size_t expert) const { return ends_[expert + 1] - ends_[expert]; }

 private:
  std::vector<std::size_t> ends_;
  std::vector<std::size_t> choices_;
};

// Rows of a matrix, `stride` elements apart; what is in a row is contiguous.
template <typename T>
struct MatrixRows {
  T* data;
  std::ptrdiff_t stride;

  T* at(std::size_t row) const { return data + static_cast<std::ptrdiff_t>(row) * stride; }
};

// Memory of one call, a row for each row of the step, without gaps.
template <typename T>
struct MixtureScratch {
  T* rows;      // [num_rows, kHidden]: what goes into an expert, then what comes out
  T* gate;      // [num_rows, kIntermediate]
  T* up;        // [num_rows, kIntermediate]
  float* sums;  // [num_rows, kHidden]
};

// out[row] = sum over ranks of weights[row, rank] * down(Activation(gate(x)) * up(x)), the matrices
// being those of expert experts[row, rank], of elements W. Products are rounded to T, the sum once.
template <typename T, std::size_t kHidden, std::size_t kIntermediate, std::size_t kExperts,
          std::size_t kTopK, typename Activation, typename W = T>
struct ExpertMixture {
  MatrixRows<T> out;
  MatrixRows<const T> x;
  const std::int32_t* experts;  // [num_rows, kTopK]
  const float* weights;         // [num_rows, kTopK]
  MixtureScratch<T> scratch;

  // matrix(role, expert): rows of gate (0), up (1) and down (2) of an expert, [out, in].
  template <typename Matrix>
  void run(std::size_t num_rows, const Matrix& matrix) const {
    std::fill(scratch.sums, scratch.sums + num_rows * kHidden, 0.0f);
    const ChoicesByExpert choices(experts, num_rows * kTopK, kExperts);
    for (std::size_t expert = 0; expert < kExperts; ++expert) {
      const std::size_t count = choices.count(expert);
      if (count == 0) continue;
      const std::size_t* own = choices.begin(expert);
      for_each_row(count, kHidden, [&](std::size_t i) {
        std::memcpy(scratch.rows + i * kHidden, x.at(own[i] / kTopK), kHidden * sizeof(T));
      });
      multiply<kHidden, kIntermediate>(scratch.gate, scratch.rows, matrix(0, expert), count);
      multiply<kHidden, kIntermediate>(scratch.up, scratch.rows, matrix(1, expert), count);
      for_each_row(count, kIntermediate, [&](std::size_t i) {
        activate(scratch.gate + i * kIntermediate, scratch.up + i * kIntermediate);
      });
      multiply<kIntermediate, kHidden>(scratch.rows, scratch.gate, matrix(2, expert), count);
      for_each_row(count, kHidden, [&](std::size_t i) {
        add(scratch.sums + own[i] / kTopK * kHidden, scratch.rows + i * kHidden, weights[own[i]]);
      });
    }
    for_each_row(num_rows, kHidden, [&](std::size_t row) {
      const float* sums = scratch.sums + row * kHidden;
      norm_detail::for_each_vector(kHidden, [&](std::size_t start, std::size_t width) {
        norm_detail::store(out.at(row) + start, norm_detail::load(sums + start, width), width);
      });
    });
  }

 private:
  // result = rows @ matrix^T
  template <std::size_t kIn, std::size_t kOut>
  static void multiply(T* result, const T* rows, MatrixRows<const W> matrix, std::size_t count) {
    gemm<T, W>({1, count, kOut, kIn}, {rows, 0, kIn, 1}, {matrix.data, 0, 1, matrix.stride},
               {result, 0, kOut, 1}, 1.0f, 0.0f);
  }

  static void activate(T* gate, const T* up) {
    norm_detail::for_each_vector(kIntermediate, [&](std::size_t start, std::size_t width) {
      const simd::F32 active = Activation()(norm_detail::load(gate + start, width));
      norm_detail::store(gate + start, active * norm_detail::load(up + start, width), width);
    });
  }

  static void add(float* sums, const T* result, float weight) {
    norm_detail::for_each_vector(kHidden, [&](std::size_t start, std::size_t width) {
      const simd::F32 sum =
          simd::fma(simd::set(weight), norm_detail::load(result + start, width),
                    norm_detail::load(static_cast<const float*>(sums) + start, width));
      norm_detail::store(sums + start, sum, width);
    });
  }
};

}  // namespace qwen3::kernels
