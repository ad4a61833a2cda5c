// Rows of norms: types that go together and the walk over all but the last dimension.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "dispatch.hpp"
#include "parallel.hpp"
#include "strided.hpp"
#include "tensor.hpp"

namespace qwen3::infinicore {

// Calls body(TypeTag<T>(), TypeTag<W>()) for activations of type T and weights of type W: half
// types with any float weight, F32 with F32, F64 with F64.
template <typename Body>
void with_norm_types(infiniDtype_t dtype, infiniDtype_t weight_dtype, const Body& body) {
  with_real_type(dtype, [&](auto tag) {
    using T = TypeOf<decltype(tag)>;
    if constexpr (sizeof(T) == 2) {
      with_float_type(weight_dtype, [&](auto weight_tag) { body(tag, weight_tag); });
    } else {
      body(tag, tag);
    }
  });
}

// The tensors' common shape without its last dimension, plus a last dimension of 1 so that each row
// is a run of its own.
template <std::size_t Count>
kernels::StridedLoop<Count> loop_over_rows(const std::array<const Tensor*, Count>& tensors) {
  std::vector<std::size_t> shape = tensors[0]->shape;
  shape.pop_back();
  std::array<std::vector<std::ptrdiff_t>, Count> strides;
  for (std::size_t i = 0; i < Count; ++i) {
    strides[i] = tensors[i]->strides;
    strides[i].pop_back();
  }
  return {shape, strides};
}

// Calls body(offsets) for each row, rows shared out among threads.
template <std::size_t Count, typename Body>
void for_each_row(const kernels::StridedLoop<Count>& rows, std::size_t row_size, const Body& body) {
  constexpr std::size_t kThreadElements = 8192;
  kernels::parallel_for(rows.size(), kThreadElements / (row_size + 1) + 1,
                        [&](std::size_t begin, std::size_t end) {
                          for (std::size_t row = begin; row < end; ++row) {
                            body(rows.element(row));
                          }
                        });
}

}  // namespace qwen3::infinicore
