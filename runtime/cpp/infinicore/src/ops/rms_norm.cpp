#include "rms_norm.hpp"

#include "dispatch.hpp"
#include "infiniop/ops/rms_norm.h"
#include "norm_rows.hpp"
#include "operator.hpp"

using namespace qwen3::infinicore;
namespace kernels = qwen3::kernels;

namespace {

struct RmsNormDescriptor : InfiniopDescriptor {
  infiniDtype_t dtype;
  infiniDtype_t weight_dtype;
  std::size_t size;
  float epsilon;
  kernels::StridedLoop<2> rows;  // y, x
};

}  // namespace

infiniStatus_t infiniopCreateRMSNormDescriptor(infiniopHandle_t handle,
                                               infiniopRMSNormDescriptor_t* desc_ptr,
                                               infiniopTensorDescriptor_t y,
                                               infiniopTensorDescriptor_t x,
                                               infiniopTensorDescriptor_t w, float epsilon) {
  return guarded([&]() -> infiniStatus_t {
    Operands operands(handle, kRMSNormRules, {y, x, w});
    QWEN3_TRY(operands.check());
    QWEN3_TRY(operands.check_same_shape(0, 1));
    if (w->shape[0] != y->shape.back()) {
      return operands.refuse(INFINI_STATUS_BAD_TENSOR_SHAPE, "rows of %zu, weight of %zu",
                             y->shape.back(), w->shape[0]);
    }
    QWEN3_TRY(operands.check_strides());
    auto descriptor = std::make_unique<RmsNormDescriptor>();
    descriptor->dtype = y->dtype;
    descriptor->weight_dtype = w->dtype;
    descriptor->size = y->shape.back();
    descriptor->epsilon = epsilon;
    descriptor->rows = loop_over_rows<2>({y, x});
    return finish_create(operands, {0, 1, 2}, std::move(descriptor), desc_ptr);
  });
}

infiniStatus_t infiniopGetRMSNormWorkspaceSize(infiniopRMSNormDescriptor_t desc, size_t* size) {
  return workspace_size_of(kRMSNormRules, desc, size);
}

infiniStatus_t infiniopRMSNorm(infiniopRMSNormDescriptor_t desc, void* workspace,
                               size_t workspace_size, void* y, const void* x, const void* w,
                               void* stream) {
  return run<RmsNormDescriptor, 3>(
      kRMSNormRules, desc, {workspace, workspace_size}, stream, {y, x, w},
      [](const RmsNormDescriptor& own, const std::array<void*, 3>& data) {
        with_norm_types(own.dtype, own.weight_dtype, [&](auto tag, auto weight_tag) {
          using T = TypeOf<decltype(tag)>;
          using W = TypeOf<decltype(weight_tag)>;
          for_each_row(own.rows, own.size, [&](const auto& offset) {
            kernels::rms_norm_row(static_cast<T*>(data[0]) + offset[0],
                                  static_cast<const T*>(data[1]) + offset[1],
                                  static_cast<const W*>(data[2]), own.size, own.epsilon);
          });
        });
        return kSuccess;
      });
}

infiniStatus_t infiniopDestroyRMSNormDescriptor(infiniopRMSNormDescriptor_t desc) {
  return destroy(kRMSNormRules, desc);
}
