#include "qwen3_api_table.hpp"

#ifdef QWEN3_OP_SOFTMAX

#include <functional>
#include <numeric>

#include "dispatch.hpp"
#include "infiniop/ops/softmax.h"
#include "operator.hpp"
#include "parallel.hpp"
#include "softmax.hpp"

using namespace qwen3::infinicore;
namespace kernels = qwen3::kernels;

namespace {

// A row-major tensor as [outer, size, inner] around the axis.
struct SoftmaxDescriptor : InfiniopDescriptor {
  infiniDtype_t dtype;
  std::size_t outer;
  std::size_t size;
  std::size_t inner;
};

template <typename T>
void softmax_all(const SoftmaxDescriptor& own, T* y, const T* x) {
  constexpr std::size_t kThreadElements = 4096;
  const auto stride = static_cast<std::ptrdiff_t>(own.inner);
  kernels::parallel_for(
      own.outer * own.inner, kThreadElements / (own.size + 1) + 1,
      [&](std::size_t begin, std::size_t end) {
        for (std::size_t row = begin; row < end; ++row) {
          const std::size_t at = row / own.inner * own.size * own.inner + row % own.inner;
          kernels::softmax_row(y + at, stride, x + at, stride, own.size, own.size);
        }
      });
}

}  // namespace

infiniStatus_t infiniopCreateSoftmaxDescriptor(infiniopHandle_t handle,
                                               infiniopSoftmaxDescriptor_t* desc_ptr,
                                               infiniopTensorDescriptor_t y,
                                               infiniopTensorDescriptor_t x, int axis) {
  return guarded([&]() -> infiniStatus_t {
    Operands operands(handle, kSoftmaxRules, {y, x});
    QWEN3_TRY(operands.check());
    QWEN3_TRY(operands.check_same_shape(0, 1));
    QWEN3_TRY(operands.check_strides());
    const int rank = static_cast<int>(y->rank());
    if (axis < -rank || axis >= rank) {
      return operands.refuse(INFINI_STATUS_BAD_PARAM, "axis %d of rank %d", axis, rank);
    }
    const auto at = y->shape.begin() + (axis < 0 ? axis + rank : axis);
    const auto product = [](auto begin, auto end) {
      return std::accumulate(begin, end, std::size_t{1}, std::multiplies<>());
    };
    auto descriptor = std::make_unique<SoftmaxDescriptor>();
    descriptor->dtype = y->dtype;
    descriptor->outer = product(y->shape.begin(), at);
    descriptor->size = *at;
    descriptor->inner = product(at + 1, y->shape.end());
    return finish_create(operands, {0, 1}, std::move(descriptor), desc_ptr);
  });
}

infiniStatus_t infiniopGetSoftmaxWorkspaceSize(infiniopSoftmaxDescriptor_t desc, size_t* size) {
  return workspace_size_of(kSoftmaxRules, desc, size);
}

infiniStatus_t infiniopSoftmax(infiniopSoftmaxDescriptor_t desc, void* workspace,
                               size_t workspace_size, void* y, const void* x, void* stream) {
  return run<SoftmaxDescriptor, 2>(
      kSoftmaxRules, desc, {workspace, workspace_size}, stream, {y, x},
      [](const SoftmaxDescriptor& own, const std::array<void*, 2>& data) {
        if (own.size > 0) {
          with_float_type(own.dtype, [&](auto tag) {
            using T = TypeOf<decltype(tag)>;
            softmax_all(own, static_cast<T*>(data[0]), static_cast<const T*>(data[1]));
          });
        }
        return kSuccess;
      });
}

infiniStatus_t infiniopDestroySoftmaxDescriptor(infiniopSoftmaxDescriptor_t desc) {
  return destroy(kSoftmaxRules, desc);
}

#endif  // QWEN3_OP_SOFTMAX
