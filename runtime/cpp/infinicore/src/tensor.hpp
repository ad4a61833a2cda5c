// Tensor descriptors and what follows from shape, strides and element type.
#pragma once

#include <cstddef>
#include <vector>

#include "infiniop/tensor_descriptor.h"

// The name is the C ABI's.
struct InfiniopTensorDescriptor {
  infiniDtype_t dtype;
  std::vector<std::size_t> shape;
  std::vector<std::ptrdiff_t> strides;  // in elements

  std::size_t rank() const { return shape.size(); }
  std::size_t size() const;
  bool is_contiguous() const;  // row-major, dimensions of 1 aside
  // Whether a dimension above 1 has stride 0.
  bool repeats() const;
};

namespace qwen3::infinicore {

using Tensor = InfiniopTensorDescriptor;

// Bytes per element; 0 for an invalid type.
std::size_t dtype_size(infiniDtype_t dtype);

// Bytes around a data pointer that a tensor covers; empty for a tensor without elements.
struct Extent {
  std::ptrdiff_t begin = 0;
  std::ptrdiff_t end = 0;

  bool empty() const { return begin == end; }
};

Extent extent_of(const Tensor& tensor);

// The extent of the same elements in row-major order, for operators that ignore strides.
Extent dense_extent_of(const Tensor& tensor);

}  // namespace qwen3::infinicore
