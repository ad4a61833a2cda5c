// Activations that InfiniCore lacks, made of the operators it has.
#pragma once

#include "engine/tensor.hpp"

namespace qwen3 {

// output = gelu_tanh(input) = x * sigmoid(2 * sqrt(2 / pi) * (x + 0.044715 x^3)), the tanh
// approximation of GELU (Hendrycks and Gimpel 2016) with tanh(y) = 2 sigmoid(2 y) - 1.
//
// The sigmoid of z is the first element of softmax(z, 0), which causal_softmax gives for rows of
// two. `cubic`, `linear` and `zero` hold 2 sqrt(2/pi) 0.044715, 2 sqrt(2/pi) and 0, shape [1].
// `scratch` has room for 3 elements per element of the input. output may be input.
template <class Ops>
void gelu_tanh(Ops& ops, const Tensor& output, const Tensor& input, const Tensor& cubic,
               const Tensor& linear, const Tensor& zero, const Tensor& scratch) {
  const size_t rows = input.shape[0], columns = input.shape[1], count = rows * columns;
  const auto broadcast = [&](const Tensor& scalar) {
    return scalar.at(0, 0).repeated(0, columns).repeated(0, rows);
  };
  const Tensor z = scratch.rows(0, count).shaped({rows, columns});
  const Tensor pairs = scratch.rows(count, 2 * count).shaped({count, 1, 2});
  const auto element = [&](size_t index) {  // one element of every pair, [rows, columns]
    return pairs.at(2, index).at(1, 0).unflatten(0, rows, columns);
  };
  ops.mul(z, input, input);
  ops.mul(z, z, broadcast(cubic));
  ops.add(z, z, broadcast(linear));
  ops.mul(element(0), z, input);
  ops.rearrange(element(1), broadcast(zero));
  ops.causal_softmax(pairs, pairs);
  ops.mul(output, input, element(0));
}

}  // namespace qwen3
