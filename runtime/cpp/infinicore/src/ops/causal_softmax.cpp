#include "infiniop/ops/causal_softmax.h"

#include "dispatch.hpp"
#include "operator.hpp"
#include "parallel.hpp"
#include "softmax.hpp"

using namespace qwen3::infinicore;
namespace kernels = qwen3::kernels;

namespace {

// Strides of one of y and x, [batch, seq, total].
struct ScoreStrides {
  std::ptrdiff_t batch;
  std::ptrdiff_t row;
  std::ptrdiff_t col;

  explicit ScoreStrides(const Tensor& tensor) {
    const std::size_t r = tensor.rank();
    batch = r == 3 ? tensor.strides[0] : 0;
    row = tensor.strides[r - 2];
    col = tensor.strides[r - 1];
  }

  std::ptrdiff_t offset(std::size_t b, std::size_t i) const {
    return static_cast<std::ptrdiff_t>(b) * batch + static_cast<std::ptrdiff_t>(i) * row;
  }
};

struct CausalSoftmaxDescriptor : InfiniopDescriptor {
  CausalSoftmaxDescriptor(const Tensor& y_desc, const Tensor& x_desc)
      : dtype(y_desc.dtype),
        batch(y_desc.rank() == 3 ? y_desc.shape[0] : 1),
        rows(y_desc.shape[y_desc.rank() - 2]),
        total(y_desc.shape.back()),
        y(y_desc),
        x(x_desc) {}

  infiniDtype_t dtype;
  std::size_t batch;
  std::size_t rows;
  std::size_t total;
  ScoreStrides y;
  ScoreStrides x;
};

template <typename T>
void softmax_all(const CausalSoftmaxDescriptor& own, T* y, const T* x) {
  constexpr std::size_t kThreadElements = 4096;
  const std::size_t grain = kThreadElements / (own.total + 1) + 1;
  kernels::parallel_for(own.batch * own.rows, grain, [&](std::size_t begin, std::size_t end) {
    for (std::size_t index = begin; index < end; ++index) {
      const std::size_t b = index / own.rows;
      const std::size_t i = index % own.rows;
      kernels::softmax_row(y + own.y.offset(b, i), own.y.col, x + own.x.offset(b, i), own.x.col,
                           own.total - own.rows + i + 1, own.total);
    }
  });
}

}  // namespace

infiniStatus_t infiniopCreateCausalSoftmaxDescriptor(infiniopHandle_t handle,
                                                     infiniopCausalSoftmaxDescriptor_t* desc_ptr,
                                                     infiniopTensorDescriptor_t y,
                                                     infiniopTensorDescriptor_t x) {
  return guarded([&]() -> infiniStatus_t {
    Operands operands(handle, kCausalSoftmaxRules, {y, x});
    QWEN3_TRY(operands.check());
    QWEN3_TRY(operands.check_same_shape(0, 1));
    auto descriptor = std::make_unique<CausalSoftmaxDescriptor>(*y, *x);
    if (descriptor->total < descriptor->rows) {
      return operands.refuse(INFINI_STATUS_BAD_TENSOR_SHAPE, "%zu columns for %zu rows",
                             descriptor->total, descriptor->rows);
    }
    QWEN3_TRY(operands.check_strides());
    return finish_create(operands, {0, 1}, std::move(descriptor), desc_ptr);
  });
}

infiniStatus_t infiniopGetCausalSoftmaxWorkspaceSize(infiniopCausalSoftmaxDescriptor_t desc,
                                                     size_t* size) {
  return workspace_size_of(kCausalSoftmaxRules, desc, size);
}

infiniStatus_t infiniopCausalSoftmax(infiniopCausalSoftmaxDescriptor_t desc, void* workspace,
                                     size_t workspace_size, void* y, const void* x, void* stream) {
  return run<CausalSoftmaxDescriptor, 2>(
      kCausalSoftmaxRules, desc, {workspace, workspace_size}, stream, {y, x},
      [](const CausalSoftmaxDescriptor& own, const std::array<void*, 2>& data) {
        with_float_type(own.dtype, [&](auto tag) {
          using T = TypeOf<decltype(tag)>;
          softmax_all(own, static_cast<T*>(data[0]), static_cast<const T*>(data[1]));
        });
        return kSuccess;
      });
}

infiniStatus_t infiniopDestroyCausalSoftmaxDescriptor(infiniopCausalSoftmaxDescriptor_t desc) {
  return destroy(kCausalSoftmaxRules, desc);
}
