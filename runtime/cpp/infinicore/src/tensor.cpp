#include "tensor.hpp"

#include <functional>
#include <numeric>

#include "status.hpp"

std::size_t InfiniopTensorDescriptor::size() const {
  return std::accumulate(shape.begin(), shape.end(), std::size_t{1}, std::multiplies<>());
}

bool InfiniopTensorDescriptor::is_contiguous() const {
  std::ptrdiff_t expected = 1;
  for (std::size_t i = rank(); i-- > 0;) {
    if (shape[i] != 1 && strides[i] != expected) {
      return false;
    }
    expected *= static_cast<std::ptrdiff_t>(shape[i]);
  }
  return true;
}

bool InfiniopTensorDescriptor::repeats() const {
  for (std::size_t i = 0; i < rank(); ++i) {
    if (shape[i] > 1 && strides[i] == 0) {
      return true;
    }
  }
  return false;
}

namespace qwen3::infinicore {

std::size_t dtype_size(infiniDtype_t dtype) {
  switch (dtype) {
    case INFINI_DTYPE_BYTE:
    case INFINI_DTYPE_BOOL:
    case INFINI_DTYPE_I8:
    case INFINI_DTYPE_U8:
    case INFINI_DTYPE_F8:
      return 1;
    case INFINI_DTYPE_I16:
    case INFINI_DTYPE_U16:
    case INFINI_DTYPE_F16:
    case INFINI_DTYPE_BF16:
    case INFINI_DTYPE_C16:
      return 2;
    case INFINI_DTYPE_I32:
    case INFINI_DTYPE_U32:
    case INFINI_DTYPE_F32:
    case INFINI_DTYPE_C32:
      return 4;
    case INFINI_DTYPE_I64:
    case INFINI_DTYPE_U64:
    case INFINI_DTYPE_F64:
    case INFINI_DTYPE_C64:
      return 8;
    case INFINI_DTYPE_C128:
      return 16;
    default:
      return 0;
  }
}

Extent extent_of(const Tensor& tensor) {
  Extent extent;
  if (tensor.size() == 0) {
    return extent;
  }
  for (std::size_t i = 0; i < tensor.rank(); ++i) {
    const std::ptrdiff_t last =
        static_cast<std::ptrdiff_t>(tensor.shape[i] - 1) * tensor.strides[i];
    (last < 0 ? extent.begin : extent.end) += last;
  }
  const auto bytes = static_cast<std::ptrdiff_t>(dtype_size(tensor.dtype));
  return {extent.begin * bytes, (extent.end + 1) * bytes};
}

Extent dense_extent_of(const Tensor& tensor) {
  return {0, static_cast<std::ptrdiff_t>(tensor.size() * dtype_size(tensor.dtype))};
}

}  // namespace qwen3::infinicore

using qwen3::infinicore::fail;
using qwen3::infinicore::guarded;

infiniStatus_t infiniopCreateTensorDescriptor(infiniopTensorDescriptor_t* desc_ptr, size_t ndim,
                                              const size_t* shape, const ptrdiff_t* strides,
                                              infiniDtype_t dtype) {
  return guarded([&] {
    if (desc_ptr == nullptr || (ndim > 0 && shape == nullptr)) {
      return fail(INFINI_STATUS_NULL_POINTER, "tensor descriptor: NULL argument");
    }
    auto* tensor = new InfiniopTensorDescriptor{dtype, {}, std::vector<std::ptrdiff_t>(ndim)};
    if (ndim > 0) {
      tensor->shape.assign(shape, shape + ndim);
    }
    std::ptrdiff_t step = 1;
    for (std::size_t i = ndim; i-- > 0;) {
      tensor->strides[i] = strides != nullptr ? strides[i] : step;
      step *= static_cast<std::ptrdiff_t>(shape[i]);
    }
    *desc_ptr = tensor;
    return INFINI_STATUS_SUCCESS;
  });
}

infiniStatus_t infiniopDestroyTensorDescriptor(infiniopTensorDescriptor_t desc) {
  delete desc;
  return INFINI_STATUS_SUCCESS;
}
