#include "engine/tensor.hpp"

#include <cstdint>

#include "engine/check.hpp"

namespace qwen3 {
namespace {

constexpr size_t kMaxElements = size_t{PTRDIFF_MAX} / sizeof(float);

}  // namespace

size_t element_size(infiniDtype_t dtype) {
  switch (dtype) {
    case INFINI_DTYPE_F32:
    case INFINI_DTYPE_I32:
      return 4;
    case INFINI_DTYPE_F16:
    case INFINI_DTYPE_BF16:
      return 2;
    default:
      throw EngineFailure("a tensor of an element type that engines do not use");
  }
}

Tensor Tensor::contiguous(void* data, infiniDtype_t dtype, std::initializer_list<size_t> shape) {
  Tensor tensor;
  tensor.data = static_cast<std::byte*>(data);
  tensor.dtype = dtype;
  for (size_t extent : shape) tensor.shape[tensor.rank++] = extent;
  size_t stride = 1;
  for (size_t axis = tensor.rank; axis-- > 0;) {
    const size_t extent = tensor.shape[axis];
    tensor.strides[axis] = static_cast<ptrdiff_t>(stride);
    // A product that wrapped around would pass for a small buffer.
    require(extent == 0 || stride <= kMaxElements / extent, "a tensor larger than any memory");
    stride *= extent;
  }
  return tensor;
}

size_t Tensor::num_elements() const {
  size_t count = 1;
  for (size_t axis = 0; axis < rank; ++axis) count *= shape[axis];
  return count;
}

Tensor Tensor::shaped(std::initializer_list<size_t> new_shape) const {
  Tensor view = contiguous(data, dtype, new_shape);
  require(view.num_elements() <= num_elements(), "a buffer is smaller than the value put in it");
  return view;
}

Tensor Tensor::slice(size_t axis, size_t start, size_t count) const {
  require(start + count <= shape[axis], "a slice reaches past the end of its axis");
  Tensor view = *this;
  view.shape[axis] = count;
  view.data +=
      static_cast<ptrdiff_t>(start) * strides[axis] * static_cast<ptrdiff_t>(element_size(dtype));
  return view;
}

Tensor Tensor::unflatten(size_t axis, size_t outer, size_t inner) const {
  require(outer * inner == shape[axis], "an axis is split into factors of another product");
  Tensor view = *this;
  view.rank = rank + 1;
  for (size_t i = rank; i > axis + 1; --i) {
    view.shape[i] = shape[i - 1];
    view.strides[i] = strides[i - 1];
  }
  view.shape[axis] = outer;
  view.strides[axis] = strides[axis] * static_cast<ptrdiff_t>(inner);
  view.shape[axis + 1] = inner;
  view.strides[axis + 1] = strides[axis];
  return view;
}

Tensor Tensor::flatten(size_t axis) const {
  const bool mergeable =
      shape[axis] == 1 || shape[axis + 1] == 1 ||
      strides[axis] == strides[axis + 1] * static_cast<ptrdiff_t>(shape[axis + 1]);
  require(mergeable, "two axes that do not lie one behind the other cannot be merged");
  Tensor view = *this;
  view.rank = rank - 1;
  view.shape[axis] = shape[axis] * shape[axis + 1];
  view.strides[axis] = shape[axis + 1] == 1 ? strides[axis] : strides[axis + 1];
  for (size_t i = axis + 1; i < view.rank; ++i) {
    view.shape[i] = shape[i + 1];
    view.strides[i] = strides[i + 1];
  }
  return view;
}

Tensor Tensor::permute(std::initializer_list<size_t> order) const {
  Tensor view = *this;
  size_t axis = 0;
  for (size_t source : order) {
    view.shape[axis] = shape[source];
    view.strides[axis] = strides[source];
    ++axis;
  }
  return view;
}

Tensor Tensor::transposed() const {
  Tensor view = *this;
  view.shape[rank - 1] = shape[rank - 2];
  view.shape[rank - 2] = shape[rank - 1];
  view.strides[rank - 1] = strides[rank - 2];
  view.strides[rank - 2] = strides[rank - 1];
  return view;
}

Tensor Tensor::repeated(size_t axis, size_t count) const {
  Tensor view = *this;
  view.rank = rank + 1;
  for (size_t i = rank; i > axis; --i) {
    view.shape[i] = shape[i - 1];
    view.strides[i] = strides[i - 1];
  }
  view.shape[axis] = count;
  view.strides[axis] = 0;
  return view;
}

Tensor Tensor::at(size_t axis, size_t index) const {
  Tensor view = slice(axis, index, 1);
  for (size_t i = axis; i + 1 < rank; ++i) {
    view.shape[i] = shape[i + 1];
    view.strides[i] = strides[i + 1];
  }
  view.rank = rank - 1;
  return view;
}

}  // namespace qwen3
